"""Every key a configuration file may hold: its default, what it accepts, and what that becomes in our units.

Names and defaults down to `gpu.maxTempC` are the npm original's; those after it are ours in the same style.
GB and MB in a key mean 1024 MiB and 1 MiB: what `nvidia-smi` and `free -h` print.
"""

import math
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import cast

import msgspec

Parser = Callable[[object], object]

_TEN_YEARS_MIN = 5_256_000
_MAX_GB = 1024
_SIGNALS = ("INT", "TERM", "USR1", "USR2", "HUP", "QUIT")
_LIMIT = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(%|GB|GiB|G|MB|MiB|M)?", re.IGNORECASE | re.ASCII)


class Framework(StrEnum):
    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"
    AUTO = "auto"


class GpuProbeKind(StrEnum):
    AUTO = "auto"
    NVIDIA_SMI = "nvidia-smi"
    ROCM = "rocm"
    NONE = "none"


class GpuMemoryLimit(msgspec.Struct, frozen=True):
    """A cap on the GPU memory a run may use: `percent` of the GPU's total (0 < percent <= 100), or `mib`."""

    percent: float | None = None
    mib: int | None = None

    def of(self, total_mib: int) -> int:
        """The cap in MiB on a GPU with `total_mib`; never more than the GPU has."""
        if self.percent is not None:
            return int(total_mib * self.percent / 100)
        return total_mib if self.mib is None else min(self.mib, total_mib)


def parse_gpu_memory_limit(text: str) -> GpuMemoryLimit:
    """Read "80%", "8" (GB, as in the original), "7.5GB", "8GiB" or "8192MB". Raises ValueError.

    Over 1024 GB is refused: no GPU has it, and a bare 8192 was meant to be MB.
    """
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        raise ValueError("not a share or a size")
    amount, unit = float(found[1]), (found[2] or "GB").upper()
    if unit == "%":
        if not 0 < amount <= 100:
            raise ValueError("not above 0% and at most 100%")
        return GpuMemoryLimit(percent=amount)
    mib = int(amount if unit.startswith("M") else amount * 1024)
    if not 0 < mib <= _MAX_GB * 1024:
        raise ValueError(f"not above 0 and at most {_MAX_GB} GB")
    return GpuMemoryLimit(mib=mib)


class SettingKey(msgspec.Struct, frozen=True):
    """One key. `read` turns a value in the user's units into ours, or raises ValueError; `expects` says why.

    `nullable`: null is a value too. `user_only`: a project file may not set it.
    """

    name: str
    field: str
    default: object
    expects: str
    read: Parser
    nullable: bool = False
    user_only: bool = False


def _number(high: float, *, low: float = 0, above: bool = False, scale: float = 1) -> Parser:
    def read(value: object) -> object:
        # NaN fails every comparison, and an int too large for a float is compared before it is converted.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError
        if above and value == low:
            raise ValueError
        return float(value) * scale

    return read


def _whole(high: int, *, low: int = 0) -> Parser:
    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return read


def _mib(high_gb: float) -> Parser:
    """GB to MiB, up: a floor is never lower than what was asked."""
    gb = _number(high_gb)
    return lambda value: math.ceil(cast("float", gb(value)) * 1024)


def _temperature(value: object) -> object:
    """Down to a whole degree: a limit is never higher than what was asked."""
    return math.floor(cast("float", _number(120, low=20)(value)))


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - one kind of refusal, whatever was wrong
    return value


def _text(value: object) -> str:
    """Text fit for an argument, a path or the database: not empty, no control character, no surrogate."""
    if not isinstance(value, str) or not 0 < len(value) <= 4096 or any(ord(char) < 32 for char in value):
        raise ValueError
    value.encode()
    return value


def _limit(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError  # noqa: TRY004
    text = value if isinstance(value, str) else f"{value}"
    parse_gpu_memory_limit(text)
    return text.strip()


def _signal(value: object) -> object:
    name = _text(value).upper().removeprefix("SIG")
    if name not in _SIGNALS:
        raise ValueError
    return name


def _active_hours(value: object) -> object:
    """None for always. An option is one text: windows with semicolons between them."""
    if isinstance(value, str):
        given: list[object] = [part.strip() for part in _text(value).split(";")]
    elif isinstance(value, list | tuple):
        given = list(cast("list[object]", value))
    else:
        raise ValueError  # noqa: TRY004
    if [one for one in given if one != "always"] == []:
        return None
    from backprop.scheduler.config.active_hours import (
        parse_all,  # its patterns take a while to compile, and few use them
    )

    texts = tuple(_text(one).strip() for one in given)
    parse_all(texts)
    return texts


def _resume_arg(value: object) -> object:
    text = _text(value)
    if text not in ("auto", "none") and "{checkpoint}" not in text:
        raise ValueError
    return text


def _path(value: object) -> Path:
    try:
        path = Path(_text(value)).expanduser()
    except RuntimeError:  # ~somebody whom the machine does not know
        raise ValueError from None
    if not path.is_absolute():
        raise ValueError
    return path


def _paths(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError  # noqa: TRY004
    return tuple(_path(item) for item in cast("list[object]", value))


HOOK_EVENTS = ("completed", "failed", "timeboxed", "stopped", "group_finished", "queue_empty")
_POSITIVE_MINUTES = f"minutes: a number above 0 and at most {_TEN_YEARS_MIN}"
_minutes = _number(_TEN_YEARS_MIN, above=True, scale=60)

KEYS: tuple[SettingKey, ...] = (
    SettingKey("maxRunMinutes", "timebox_s", 10, _POSITIVE_MINUTES, _minutes),
    SettingKey("maxParallel", "max_parallel", 2, "a whole number from 1 to 1024", _whole(1024, low=1)),
    SettingKey(
        "gpuMemoryLimit",
        "gpu_memory_limit",
        None,
        'a share such as "80%" or GB such as "8"',
        _limit,
        nullable=True,
    ),
    SettingKey("minFreeRamGB", "min_free_ram_mib", 4, "GB: a number from 0 to 65536", _mib(65536)),
    SettingKey(
        "checkpointEveryMinutes",
        "checkpoint_every_s",
        None,
        f"{_POSITIVE_MINUTES}, or null",
        _minutes,
        nullable=True,
    ),
    SettingKey(
        "framework", "framework", "auto", "pytorch, tensorflow or auto", lambda value: Framework(_text(value))
    ),
    SettingKey(
        "gpu.probe",
        "gpu_probe",
        "auto",
        "auto, nvidia-smi, rocm or none",
        lambda value: GpuProbeKind(_text(value)),
    ),
    SettingKey(
        "gpu.minFreeVramMB",
        "gpu_min_vram_mib",
        2500,
        "MB: a whole number from 0 to 1048576",
        _whole(1024 * 1024),
    ),
    SettingKey(
        "gpu.maxTempC", "gpu_max_temp_c", 85, "degrees Celsius: a number from 20 to 120", _temperature
    ),
    SettingKey("autoResume", "auto_resume", True, "true or false", _flag),
    SettingKey(
        "maxSegments",
        "max_segments",
        None,
        "a whole number, 1 or more, or null",
        _whole(10**9, low=1),
        nullable=True,
    ),
    SettingKey(
        "maxTotalMinutes", "max_total_s", None, f"{_POSITIVE_MINUTES}, or null", _minutes, nullable=True
    ),
    SettingKey("overrunPercent", "overrun_pct", 0, "percent: a number from 0 to 1000", _number(1000)),
    SettingKey("graceSeconds", "grace_s", 30, "seconds: a number from 0 to 86400", _number(86400)),
    SettingKey("stopSignal", "stop_signal", "INT", "one of " + ", ".join(_SIGNALS), _signal),
    SettingKey("stopOnNan", "stop_on_nan", False, "true or false", _flag),
    SettingKey("retries", "retries", 0, "a whole number from 0 to 1000", _whole(1000)),
    SettingKey(
        "activeHours",
        "active_hours",
        None,
        '"22:00-08:00", "Mon-Fri 19:00-08:00", a list of such, or null for always',
        _active_hours,
        nullable=True,
    ),
    # High on purpose: data workers of our own runs keep a healthy machine at 1 to 2 a core. Four runnable
    # processes a core, for a whole minute, is a machine in trouble.
    SettingKey(
        "maxCpuLoad",
        "max_cpu_load",
        4.0,
        "load per core: a number above 0 and at most 1000",
        _number(1000, above=True),
    ),
    SettingKey("snapshotCode", "snapshot_code", False, "true or false", _flag),
    SettingKey("minFreeDiskGB", "min_free_disk_mib", 1, "GB: a number from 0 to 1048576", _mib(1024 * 1024)),
    SettingKey(
        "resumeArg",
        "resume_arg",
        "auto",
        "auto, none, or a text with {checkpoint}",
        _resume_arg,
        user_only=True,
    ),
    SettingKey("python", "python", None, "an absolute path, or null", _path, nullable=True, user_only=True),
    *(
        SettingKey(
            f"hooks.{event}",
            f"hook_{event}",
            None,
            "a command line, or null",
            _text,
            nullable=True,
            user_only=True,
        )
        for event in HOOK_EVENTS
    ),
    SettingKey("checkpointRoots", "checkpoint_roots", (), "a list of absolute paths", _paths, user_only=True),
)
BY_NAME = {key.name: key for key in KEYS}
# The original takes its RAM floor inside `gpu` too.
ALIASES = {"gpu.minFreeRamGB": "minFreeRamGB"}
# Keys of the original that say what to run: a file in a checkout must not, but an old file goes on working.
IGNORED = {
    "trainingScriptPath": "names no command; give SCRIPT",
    "runId": "names no run; its id is given when it is queued",
    "resumeFrom": "names no checkpoint; give --resume-from",
    "name": "names no run; give --name",
}
