"""Events: one line of JSON each, appended to the file named by BACKPROP_EVENTS.

A line goes out in one write() to a file opened with O_APPEND, so the lines of several ranks do not mix. The
file is opened for every event: an fd kept open would not survive scripts that close what they did not open,
and would be shared after a fork. What the machine does wrong (disk full, folder gone) drops the event,
because training must not die of telemetry; what the caller does wrong raises, inside Backprop and outside
alike.
"""

import os

TYPE_CHECKING = False  # typing's own constant would import typing, 3 ms
if TYPE_CHECKING:
    from typing import Protocol

    class Scalar(Protocol):
        """A 0-d tensor or a numpy scalar."""

        def item(self) -> float: ...

    Number = float | Scalar
    Json = str | int | float | bool | dict[str, float] | None

MAX_LINE_BYTES = (
    4096  # longer appends need not be one write() to the kernel; the reader's limit for a path too
)
MAX_STEP = 2**63 - 1  # SQLite's largest integer

_torn = False  # the last write stopped half way: the next line must not continue it


def checkpoint(
    path: "str | os.PathLike[str]", step: "int | Scalar | None" = None, seconds: "Number | None" = None
) -> None:
    """Say that the checkpoint at `path` (a file or folder) is complete: the next segment may resume from it.

    Call it after the file is written, never before: write to a temporary name beside it, fsync, then
    `os.replace` to its name. A half-written file announced here may be what the run resumes from.
    With several ranks, call it on one. `path` may be relative to the current folder; `step` counts from 0.
    `seconds`: how long training stood still for it, for the books of `backprop report`.

    Raises TypeError for a path that is not text, a step that is no whole number or seconds that are no number;
    ValueError for a path that is empty, not UTF-8, contains NUL or makes a line above 4,096 bytes, and for a
    step outside 0..2**63-1.
    """
    event: dict[str, Json] = {"event": "checkpoint_saved", "path": _absolute(path), "step": _step(step)}
    took_s = None if seconds is None else _real("seconds", seconds)
    if took_s is not None:
        event["seconds"] = round(max(took_s, 0.0), 3)
    line = _encode(event)
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"checkpoint path is too long to report ({len(line)} bytes; limit {MAX_LINE_BYTES})")
    _append(line)


def log(step: "int | Scalar | None" = None, loss: "Number | None" = None, **metrics: "Number") -> None:
    """Report progress: `log(step=10, loss=0.3, accuracy=0.9)`.

    Numbers may be 0-d tensors or numpy scalars: anything whose `.item()` gives a number. On a GPU tensor that
    waits for the device, so log every few steps; what `.item()` raises is passed on.
    A loss that is NaN or infinite is reported as `"loss": null, "nonfinite": true` (JSON knows neither); such
    a metric is left out. All metrics are left out if the line would exceed 4,096 bytes.

    Raises TypeError for what is not a number, ValueError for a step outside 0..2**63-1.
    """
    event: dict[str, Json] = {"step": _step(step)}
    value = None if loss is None else _real("loss", loss)
    event["loss"] = value
    if loss is not None and value is None:
        event["nonfinite"] = True
    reals = {name: _real(name, metric) for name, metric in metrics.items()}
    finite = {name: real for name, real in reals.items() if real is not None}
    line = _encode(event | {"metrics": finite}) if finite else _encode(event)
    _append(line if len(line) <= MAX_LINE_BYTES else _encode(event))


def _absolute(path: "str | bytes | os.PathLike[str] | os.PathLike[bytes]") -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("checkpoint path must be a str or a path object, not bytes")
    if not text or "\0" in text:
        raise ValueError("checkpoint path is empty or contains NUL")
    if not text.startswith("/"):
        try:  # noqa: SIM105 - contextlib is a slow import
            # Not abspath(): it would drop "link/.." as text, which names another place than the kernel does.
            text = f"{os.getcwd()}/{text}"  # noqa: PTH109 - pathlib is a slow import
        except OSError:
            pass  # the current folder is gone: the reader will find nothing at this path, and say so
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"checkpoint path {text!r} is not UTF-8 and cannot be reported") from None
    return text


def _step(step: "int | Scalar | None") -> int | None:
    if step is None:
        return None
    number = _plain(step)
    if not isinstance(number, int):
        raise TypeError(f"step must be a whole number or None, not {type(step).__name__}")
    if not 0 <= number <= MAX_STEP:
        raise ValueError(f"step must be between 0 and 2**63-1, not {number}")
    return number


def _real(name: str, value: "Number") -> float | None:
    """`value` as a float; None when it is NaN, infinite, or an int too large for a float."""
    number = _plain(value)
    if number is None:
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        real = float(number)
    except OverflowError:
        return None
    return real if real - real == 0 else None  # false for NaN and both infinities, without importing math


def _plain(value: "Number") -> int | float | None:
    """The int or float in `value`; None if there is none. A bool is no number: it is a slip of the caller."""
    inner: object = value
    if not isinstance(value, (int, float)) and callable(getattr(value, "item", None)):
        inner = value.item()
    return inner if isinstance(inner, (int, float)) and not isinstance(inner, bool) else None


def _encode(event: "dict[str, Json]") -> bytes:
    import json

    return json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _append(line: bytes) -> None:
    global _torn
    events = os.environ.get("BACKPROP_EVENTS")
    if not events:
        return
    if _torn:
        line = b"\n" + line
    try:
        fd = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(fd, line)
        finally:
            os.close(fd)
    except (OSError, ValueError):  # ValueError: the variable holds what is no path
        return
    # A disk that fills up during the write leaves half a line, and no error.
    _torn = written < len(line)
