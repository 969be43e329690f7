"""Turns the value of a setting, in the user's units, into Backprop's.

Each parser takes a value as JSON or an option has it and raises ValueError for a value that is not accepted. The row of
the key in `keys` says what was expected.
"""

import math
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

import msgspec

from backprop.scheduler.config.choices import SuspendRule
from backprop.scheduler.spec import NO_TIMEBOX_S

Parser = Callable[[object], object]

MINUTE_S: Final = 60
GB_MIB: Final = 1024
TEN_YEARS_MIN: Final = 5_256_000
SIGNALS: Final = ("INT", "TERM", "USR1", "USR2", "HUP", "QUIT")
MOST_KEPT: Final = 16
"""Checkpoints; of a run the newest 20 are on record."""
_MAX_GB: Final = 1024
_LIMIT: Final = r"(?ia)(\d{1,9}(?:\.\d{1,6})?)\s*(%|GB|GiB|G|MB|MiB|M)?"


class GpuMemoryLimit(msgspec.Struct, frozen=True):
    """A cap on the GPU memory a run may use: `percent` of the GPU's total (0 < percent <= 100), or `mib`."""

    percent: float | None = None
    mib: int | None = None

    def of(self, total_mib: int) -> int:
        """Return the cap in MiB on a GPU with `total_mib`; never more than the GPU has."""
        if self.percent is not None:
            return int(total_mib * self.percent / 100)
        return total_mib if self.mib is None else min(self.mib, total_mib)


def parse_gpu_memory_limit(text: str) -> GpuMemoryLimit:
    """Read "80%", "8" (GB, as in the npm tool), "7.5GB", "8GiB" or "8192MB". Raises ValueError.

    Over 1024 GB is refused: no GPU has it, and a bare 8192 was meant to be MB.
    """
    match = re.fullmatch(_LIMIT, text.strip())
    if match is None:
        raise ValueError("not a share or a size")
    amount, unit = float(match[1]), (match[2] or "GB").upper()
    if unit == "%":
        if not 0 < amount <= 100:
            raise ValueError("not above 0% and at most 100%")
        return GpuMemoryLimit(percent=amount)
    mib = int(amount if unit.startswith("M") else amount * GB_MIB)
    if not 0 < mib <= _MAX_GB * GB_MIB:
        raise ValueError(f"not above 0 and at most {_MAX_GB} GB")
    return GpuMemoryLimit(mib=mib)


def number(high: float, *, low: float = 0, above: bool = False, scale: float = 1) -> Parser:
    """Return a parser of numbers from `low` to `high`, multiplied by `scale`. `above`: `low` itself is refused."""

    def read(value: object) -> object:
        # NaN fails every comparison, and an int too large for a float is compared before it is converted.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError
        if above and value == low:
            raise ValueError
        return float(value) * scale

    return read


def whole(high: int, *, low: int = 0) -> Parser:
    """Return a parser of whole numbers from `low` to `high`."""

    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return read


minutes: Final = number(TEN_YEARS_MIN, above=True, scale=MINUTE_S)


def timebox(value: object) -> object:
    """Read the minutes of a timebox; null, or "none" as an option or an editor has it, is no timebox."""
    return NO_TIMEBOX_S if value is None or value == "none" else minutes(value)


def gigabytes(high: float) -> Parser:
    """Return a parser of GB that gives MiB, rounded up: a floor is never lower than the user asked for."""
    read = number(high, scale=GB_MIB)
    return lambda value: math.ceil(cast("float", read(value)))


def temperature(value: object) -> object:
    """Round degrees Celsius down: a limit is never higher than the user asked for."""
    return math.floor(cast("float", number(120, low=20)(value)))


def choice(kind: type[StrEnum]) -> Parser:
    """Return a parser of the values of `kind`."""
    return lambda value: kind(text(value))


def suspend(value: object) -> object:
    """Read whether a run may be suspended; "none", as an option has it, is never."""
    return SuspendRule.NEVER if value == "none" else SuspendRule(text(value))


def flag(value: object) -> object:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - one kind of refusal, whatever was wrong
    return value


def text(value: object) -> str:
    """Accept text fit for an argument, a path or the database: not empty, no control character, no surrogate."""
    if not isinstance(value, str) or not 0 < len(value) <= 4096 or any(ord(char) < 32 for char in value):
        raise ValueError
    value.encode()
    return value


def name(value: object) -> object:
    """Accept letters, digits and what else names of hardware have."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", value) is None:
        raise ValueError
    return value


def checkpoints_kept(value: object) -> object:
    """Read how many checkpoints are kept; "none", as an option has it, is no such limit."""
    return None if value == "none" else whole(MOST_KEPT, low=1)(value)


def metric(value: object) -> object:
    """Accept NAME, NAME:min or NAME:max."""
    name, _, direction = text(value).partition(":")
    if direction not in ("", "min", "max") or not 0 < len(name) <= 128 or not name.isprintable():
        raise ValueError
    return value


def memory_limit(value: object) -> object:
    """Accept what `parse_gpu_memory_limit` reads, and keep it as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError  # noqa: TRY004
    limit = value if isinstance(value, str) else f"{value}"
    parse_gpu_memory_limit(limit)
    return limit.strip()


def signal_name(value: object) -> object:
    """Accept a signal that may ask a script to save, with or without SIG; return the name without it."""
    name = text(value).upper().removeprefix("SIG")
    if name not in SIGNALS:
        raise ValueError
    return name


def active_hours(value: object) -> object:
    """Return windows of the week as a tuple of texts, None for always. In one text, semicolons separate them."""
    if isinstance(value, str):
        windows: list[object] = [part.strip() for part in text(value).split(";")]
    elif isinstance(value, list | tuple):
        windows = list(cast("list[object]", value))
    else:
        raise ValueError  # noqa: TRY004
    if all(window == "always" for window in windows):
        return None
    # Few use active hours, and the patterns take a while to compile.
    from backprop.scheduler.config.active_hours import parse_all

    texts = tuple(text(window).strip() for window in windows)
    parse_all(texts)
    return texts


def resume_arguments(value: object) -> object:
    """Accept "auto", "none", or a text with {checkpoint} in it."""
    template = text(value)
    if template not in ("auto", "none") and "{checkpoint}" not in template:
        raise ValueError
    return template


def absolute_path(value: object) -> Path:
    """Accept an absolute path; ~ and ~user are expanded."""
    try:
        path = Path(text(value)).expanduser()
    except RuntimeError:  # ~somebody whom the machine does not know
        raise ValueError from None
    if not path.is_absolute():
        raise ValueError
    return path


def absolute_paths(value: object) -> object:
    """Accept a list of absolute paths."""
    if not isinstance(value, list | tuple):
        raise ValueError  # noqa: TRY004
    return tuple(absolute_path(item) for item in cast("list[object]", value))
