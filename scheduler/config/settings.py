"""Puts the settings together: a flag beats the project file, which beats the user file, which beats the default.

The keys are in `keys`; which files are read and trusted is in `files`.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from backprop.scheduler.config.choices import AtTimebox, Framework, ProbeKind, Secrets, SuspendRule
from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.config.files import USER_NAME, ConfigFile, project_file, shown, user_file
from backprop.scheduler.config.keys import (
    ALIASES,
    BY_NAME,
    HOOK_EVENTS,
    IGNORED,
    KEYS,
    SettingKey,
)
from backprop.scheduler.config.parsers import GpuMemoryLimit as GpuMemoryLimit
from backprop.scheduler.config.parsers import parse_gpu_memory_limit as parse_gpu_memory_limit
from backprop.scheduler.errors import BadConfig

Layer = Literal["flag", "project", "user", "default"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What applies to a run or a worker, one field per row of `KEYS`, in Backprop's units. None: no limit, or nothing
    chosen.

    `gpu_memory_limit` is text for `parse_gpu_memory_limit`. `max_cpu_load` is the one-minute load per core.
    `active_hours` is text for `active_hours.parse_all`, None for always. `stop_signal` is a name without SIG.
    `resume_arg` is "auto", "none" or a text with {checkpoint} in it.
    """

    timebox_s: float
    at_timebox: AtTimebox
    suspend: SuspendRule
    max_parallel: int
    gpu_memory_limit: str | None
    min_free_ram_mib: int
    checkpoint_every_s: float | None
    framework: Framework
    gpu_probe: ProbeKind
    gpu_min_vram_mib: int
    gpu_max_temp_c: int
    auto_resume: bool
    max_segments: int | None
    max_total_s: float | None
    overrun_pct: float
    grace_s: float
    stop_signal: str
    signal_to: str
    retries: int
    stop_on_nan: bool
    smoke: bool
    smoke_s: float
    watchdog: bool
    keep_checkpoints: int | None
    keep_metric: str | None
    secrets: Secrets
    max_cpu_load: float
    active_hours: tuple[str, ...] | None
    snapshot_code: bool
    inhibit_sleep: bool
    min_free_disk_mib: int
    max_suspended: int
    max_suspended_ram_mib: int | None
    resume_arg: str
    integrations: bool
    python: Path | None
    clusters: dict[str, Cluster]
    cluster: str | None
    cpus: int | None
    mem_mib: int | None
    gpu_type: str | None
    submit: str | None
    checkpoint_roots: tuple[Path, ...]
    hook_completed: str | None
    hook_failed: str | None
    hook_timeboxed: str | None
    hook_stopped: str | None
    hook_group_finished: str | None
    hook_queue_empty: str | None

    @property
    def hooks(self) -> dict[str, str]:
        """Return the user's command for each event that has one, by the names in `HOOK_EVENTS`."""
        given: dict[str, str | None] = {event: getattr(self, f"hook_{event}") for event in HOOK_EVENTS}
        return {event: command for event, command in given.items() if command is not None}


class Source(msgspec.Struct, frozen=True):
    """Who set a value: the layer, its option or file (or "default"), and the value as given there."""

    layer: Layer
    where: str
    given: object


class Effective(msgspec.Struct, frozen=True):
    """The settings, the source of each by field, and notes for the user about what was read but has no effect."""

    settings: Settings
    sources: Mapping[str, Source]
    notes: tuple[str, ...]

    def describe(self) -> list[tuple[str, str, str]]:
        """Return (key, value in the user's units, source) of each setting, in the order of `KEYS`."""
        return [
            (key.name, _plain(self.sources[key.field].given), self.sources[key.field].where) for key in KEYS
        ]

    def values(self) -> list[tuple[str, object, str]]:
        """As `describe`, with each value as JSON has it: null, true, a number, text or a list."""
        return [
            (key.name, _json(self.sources[key.field].given), self.sources[key.field].where) for key in KEYS
        ]

    def spec_fields(self) -> dict[str, Any]:
        """Return the settings that stay with a run, by field of `RunSpec`. A limit of the worker that nobody has
        chosen is None."""
        return {
            key.field: None if key.worker_limit and self._is_default(key) else spec_value(self.settings, key)
            for key in KEYS
            if key.stays_with_run
        }

    def _is_default(self, key: SettingKey) -> bool:
        return self.sources[key.field].layer == "default"


def load(cwd: Path | None, home: Path, config: Path | None, flags: Mapping[str, object]) -> Effective:
    """Read both files, check every layer whole, and put the layers together.

    `cwd`: None for a directory that was removed. `home`: BACKPROP_HOME. `config`: the project file to read instead of
    the one in `cwd`. `flags`: values in the user's units by key (`{"maxRunMinutes": 0.1}`); None is "not given".
    Raises BadConfig for the first thing refused, naming the file or option and the key. Raises KeyError for a flag
    that is not a key, which is a bug of the caller.
    """
    layers: list[dict[str, tuple[object, Source]]] = [_flag_layer(flags)]
    notes: list[str] = []
    file = project_file(cwd, config)
    if file is not None:
        layers.append(_file_layer("project", file, home))
        notes += _notes("a project file", file)
    file = user_file(home)
    if file is not None:
        layers.append(_file_layer("user", file, home))
        notes += _notes("a configuration file", file)
    layers.append(_DEFAULT_LAYER)
    chosen = {key.field: next(layer[key.name] for layer in layers if key.name in layer) for key in KEYS}
    values = {field: value for field, (value, _) in chosen.items()}
    sources = {field: source for field, (_, source) in chosen.items()}
    return Effective(msgspec.convert(values, Settings), sources, tuple(notes))


def spec_value(settings: Settings, key: SettingKey) -> object:
    """Return the value of a setting as `RunSpec` has it: plain text instead of enums and paths."""
    value: object = getattr(settings, key.field)
    if isinstance(value, tuple):
        return tuple(str(item) for item in cast("tuple[object, ...]", value))
    return value.value if isinstance(value, StrEnum) else value


def _flag_layer(flags: Mapping[str, object]) -> dict[str, tuple[object, Source]]:
    layer: dict[str, tuple[object, Source]] = {}
    for name, value in flags.items():
        key = BY_NAME[name]
        if value is not None:
            where = key.option or name
            layer[name] = _read(key, value, where), Source("flag", where, value)
    return layer


def _file_layer(
    layer: Literal["project", "user"], file: ConfigFile, home: Path
) -> dict[str, tuple[object, Source]]:
    values: dict[str, tuple[object, Source]] = {}
    for written, value in file.values.items():
        if written in IGNORED:
            continue
        key = BY_NAME.get(ALIASES.get(written, written))
        if key is None:
            raise BadConfig(f"{file.path}: {shown(written)} is not a setting{_did_you_mean(written)}")
        if key.user_only and layer == "project":
            option = f" or with {key.option}" if key.option else ""
            raise BadConfig(
                f"{file.path}: {written} may not be set by a project file, which could then choose what "
                f"runs, is read or removed; set it in {home / USER_NAME}{option}"
            )
        if key.name in values:
            raise BadConfig(f"{file.path}: {written} is given twice (as {key.name} too); keep one")
        where = f"{file.path}: {written}"
        values[key.name] = _read(key, value, where), Source(layer, str(file.path), value)
    return values


def _read(key: SettingKey, value: object, where: str) -> object:
    if value is None and key.nullable:
        return None
    try:
        return key.read(value)
    except (ValueError, OverflowError):
        raise BadConfig(f"{where}: expected {key.expects}; got {shown(value)}") from None


def _did_you_mean(written: str) -> str:
    import difflib  # 13 ms that only a mistake should pay

    names: Iterable[str] = (*BY_NAME, *ALIASES, *IGNORED)
    close = {name.lower(): name for name in names} | {name.rpartition(".")[2].lower(): name for name in names}
    best = difflib.get_close_matches(written.lower()[:100], close, n=1)
    return f"; did you mean {close[best[0]]}?" if best else "; `backprop config` lists them all"


def _notes(kind: str, file: ConfigFile) -> list[str]:
    return [
        f"{file.path}: {name} is ignored: {kind} {why}"
        for name, why in IGNORED.items()
        if name in file.values
    ]


def _json(value: object) -> object:
    return [str(item) for item in cast("list[object]", value)] if isinstance(value, list | tuple) else value


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in cast("list[object]", value)) or "none"
    return str(value)


_DEFAULT_LAYER: dict[str, tuple[object, Source]] = {
    key.name: (_read(key, key.default, "default"), Source("default", "default", key.default)) for key in KEYS
}
DEFAULTS = msgspec.convert({key.field: _DEFAULT_LAYER[key.name][0] for key in KEYS}, Settings)
