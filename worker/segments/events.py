"""Parses what a script reports on its output: a checkpoint it saved, or its progress. The rest is ordinary output.

The shapes are the npm original's. A line is whatever a script printed, so nothing here trusts it:

    {"event": "checkpoint_saved", "path": "out/last.pt", "step": 1200, "seconds": 3.2}
    {"step": 1200, "loss": 0.31, "metrics": {"accuracy": 0.87}}       either of step and loss may be missing
    {"event": "progress", "step": 1200, "loss": null, "nonfinite": true}
    {"event": "train step", "step": 1200, "loss": 0.31}               a logger's: `event` is its message
    {"step": 1200, "loss": NaN}                                       as Python's json writes it

Of ordinary output one thing is understood: a loss that is NaN, as in `loss: nan` or `{'loss': nan}`.

Bounds: 64 KiB per line, 4 KiB per path, steps from 0 to 2**63 - 1 (what SQLite holds), 64 metrics.
"""

import math
import re
from typing import cast

import msgspec

MAX_LINE = 64 * 1024
MAX_PATH_BYTES = 4096
MAX_STEP = 2**63 - 1
MAX_METRICS = 64
MAX_SAVE_S = 86_400.0
MAX_METRIC_NAME = 128

_NO_NUMBER = re.compile(rb"(?<=[:,\[])\s*-?(?:NaN|Infinity)(?=\s*[,}\]])")
_LOSS_IS_NO_NUMBER = re.compile(rb'"loss"\s*:\s*-?(?:NaN|Infinity)')
_LOSS_IS_NAN = re.compile(
    rb"""\b(?<!best )(?<!val )(?<!valid )(?<!validation )(?<!eval )(?<!test )"""
    rb"""(?:(?:train|training|total)[_/])?loss['"]?(?:\s*[:=]\s*|[ \t]+(?:is[ \t]+)?)(?:tensor\()?-?nan\b""",
    re.IGNORECASE,
)
"""The loss of the training, by a sign or by a space as nanoGPT and torchvision's references print it."""

_MENTIONS_US = re.compile(rb'"(?:event|step|loss)"\s*:')


class CheckpointEvent(msgspec.Struct, frozen=True):
    """The script announces that it saved `path` (as written: often relative to its directory). Not validated yet.
    `seconds`: how long training stood still for it; 0 where it doesn't say."""

    path: str
    step: int | None = None
    seconds: float = 0.0


class ProgressEvent(msgspec.Struct, frozen=True):
    """The script's progress, in finite numbers. `nonfinite`: it reports that its loss is NaN or infinite."""

    step: int | None = None
    loss: float | None = None
    metrics: dict[str, float] = {}
    nonfinite: bool = False


class BadEvent(msgspec.Struct, frozen=True):
    """A line that looks like an event and is not a valid one. To be counted; never fatal."""

    why: str


class _Line(msgspec.Struct):
    """The keys we know, of any type yet. msgspec skips the others without building them."""

    event: object = None
    path: object = None
    step: object = None
    loss: object = None
    metrics: object = None
    nonfinite: object = None
    seconds: object = None


_decoder = msgspec.json.Decoder(_Line)


def parse(line: bytes) -> CheckpointEvent | ProgressEvent | BadEvent | None:
    """Parse one line of output, without its newline. Return None for ordinary output. Raises nothing."""
    text = _json_part(line)
    if text is None:
        return _ordinary(line)
    if len(text) > MAX_LINE:
        return _not_json(text[:MAX_LINE], f"longer than {MAX_LINE} bytes")
    try:
        decoded = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        finite, changed = _NO_NUMBER.subn(b" null", text)
        if not changed:
            return _ordinary(text) or _not_json(text, str(error))
        event = parse(finite)
        if isinstance(event, ProgressEvent) and _LOSS_IS_NO_NUMBER.search(text):
            return msgspec.structs.replace(event, nonfinite=True)
        return event or _not_json(text, str(error))
    try:
        if decoded.event == "checkpoint_saved":
            return CheckpointEvent(_path(decoded.path), _step(decoded.step), _seconds(decoded.seconds))
        if decoded.event in (None, "progress"):
            return _progress(decoded)
        return _progress_beside(decoded)
    except ValueError as error:
        return BadEvent(str(error))


def may_hold_any(block: bytes) -> bool:
    """Return whether `parse` may return anything for a line of `block`: a hundred times as fast as to ask it of each.

    All events have one of these keys. JSON may also write a letter as an escape.
    """
    if b"{" in block and (
        b'"event"' in block
        or b'"step"' in block
        or b'"loss"' in block
        or b'"nonfinite"' in block
        or b"\\u" in block
    ):
        return True
    return (b"nan" in block or b"NaN" in block or b"NAN" in block) and _LOSS_IS_NAN.search(block) is not None


def _ordinary(line: bytes) -> ProgressEvent | None:
    nan = b"nan" in line or b"NaN" in line or b"NAN" in line
    return (
        ProgressEvent(nonfinite=True) if nan and len(line) <= MAX_LINE and _LOSS_IS_NAN.search(line) else None
    )


def _not_json(text: bytes, why: str) -> BadEvent | None:
    """Many scripts print a dict ({'loss': 0.3}) or JSON of their own; only text with an event's keys is a bad event."""
    return BadEvent(why) if _MENTIONS_US.search(text) else None


def _json_part(line: bytes) -> bytes | None:
    """The part of a line that could be an event; None if no part could.

    A progress bar ends without a newline, so what a script prints next lands behind it on the same line. A
    carriage return shows that there is a bar; the checkpoint announced behind it must not be lost.
    """
    line = line.strip(b" \t\r")
    if line.startswith(b"{"):
        return line
    bar = line.rfind(b"\r")
    at = line.find(b'{"', bar) if bar >= 0 else -1
    return line[at:] if at >= 0 else None


def _progress(line: _Line) -> ProgressEvent | None:
    nonfinite = line.nonfinite is True
    event = ProgressEvent(_step(line.step), _loss(line.loss), _metrics(line.metrics), nonfinite)
    empty = event.step is None and event.loss is None and not nonfinite and line.event is None
    return None if empty else event


def _progress_beside(line: _Line) -> ProgressEvent | None:
    """A logger's line, which uses `event` for something else (structlog: the message). It is no error if it means
    something else by a step or a loss, too."""
    try:
        event = _progress(line)
    except ValueError:
        return None
    return event if event is not None and (event.step, event.loss) != (None, None) else None


def _path(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("path: expected text")
    if len(value.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"path: longer than {MAX_PATH_BYTES} bytes")
    if "\0" in value:
        raise ValueError("path: holds a NUL")
    return value


def _step(value: object) -> int | None:
    """A float that is whole counts: JavaScript and numpy write 3.0."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_STEP:
        raise ValueError("step: expected a whole number from 0 to 2**63 - 1")
    return value


def _seconds(value: object) -> float:
    """A time that is none costs no checkpoint."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value <= MAX_SAVE_S else 0.0


def _loss(value: object) -> float | None:
    if value is None:
        return None
    loss = _finite(value)
    if loss is None:
        raise ValueError("loss: expected a finite number or null")
    return loss


def _metrics(value: object) -> dict[str, float]:
    """The finite numbers among the first entries; the others are ignored."""
    if not isinstance(value, dict):
        return {}
    metrics: dict[str, float] = {}
    for name, number in cast("dict[str, object]", value).items():
        finite = _finite(number)
        if finite is not None and len(name) <= MAX_METRIC_NAME and "\0" not in name:
            metrics[name] = finite
            if len(metrics) == MAX_METRICS:
                break
    return metrics


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int of 400 digits
        return None
    return number if math.isfinite(number) else None
