"""The effective settings, and where each came from: flag, project file, user file, default, in that order.

What the keys are is `settings_keys.py`; which files are read and believed, `settings_files.py`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec

from backprop.scheduler.config.files import USER_NAME, ConfigFile, project_file, shown, user_file
from backprop.scheduler.config.keys import (
    ALIASES,
    BY_NAME,
    HOOK_EVENTS,
    IGNORED,
    KEYS,
    Framework,
    GpuProbeKind,
    SettingKey,
)
from backprop.scheduler.config.keys import GpuMemoryLimit as GpuMemoryLimit
from backprop.scheduler.config.keys import parse_gpu_memory_limit as parse_gpu_memory_limit
from backprop.scheduler.errors import BadConfig

Layer = Literal["flag", "project", "user", "default"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What applies to a run or a worker, in our units. None: no limit, or nothing chosen.

    `gpu_memory_limit` is text for `parse_gpu_memory_limit`; `max_cpu_load` is the one-minute load per core;
    `active_hours` is text for `hours.parse_all`, None: always; `stop_signal` is a name without SIG; `resume_arg` is
    auto, none or a text holding {checkpoint}.
    """

    timebox_s: float
    max_parallel: int
    gpu_memory_limit: str | None
    min_free_ram_mib: int
    checkpoint_every_s: float | None
    framework: Framework
    gpu_probe: GpuProbeKind
    gpu_min_vram_mib: int
    gpu_max_temp_c: int
    auto_resume: bool
    max_segments: int | None
    max_total_s: float | None
    overrun_pct: float
    grace_s: float
    stop_signal: str
    retries: int
    stop_on_nan: bool
    max_cpu_load: float
    active_hours: tuple[str, ...] | None
    snapshot_code: bool
    min_free_disk_mib: int
    resume_arg: str
    python: Path | None
    checkpoint_roots: tuple[Path, ...]
    hook_completed: str | None
    hook_failed: str | None
    hook_timeboxed: str | None
    hook_stopped: str | None
    hook_group_finished: str | None
    hook_queue_empty: str | None

    @property
    def hooks(self) -> dict[str, str]:
        """The user's command for each event that has one, by the names in `HOOK_EVENTS`."""
        given: dict[str, str | None] = {event: getattr(self, f"hook_{event}") for event in HOOK_EVENTS}
        return {event: command for event, command in given.items() if command is not None}


class Source(msgspec.Struct, frozen=True):
    """Who set a value: the layer, its option or file (or `default`), and the value as given there."""

    layer: Layer
    where: str
    given: object


class Effective(msgspec.Struct, frozen=True):
    """The settings, the source of each by field name, and what was read but has no effect, in words."""

    settings: Settings
    sources: Mapping[str, Source]
    notes: tuple[str, ...]

    def describe(self) -> list[tuple[str, str, str]]:
        """A row for each key, in the order of the list of keys: key, value in the user's units, source."""
        return [
            (key.name, _plain(self.sources[key.field].given), self.sources[key.field].where) for key in KEYS
        ]

    def values(self) -> list[tuple[str, object, str]]:
        """As `describe`, each value as JSON has it: null, true, a number, text or a list."""
        return [
            (key.name, _json(self.sources[key.field].given), self.sources[key.field].where) for key in KEYS
        ]


def load(
    cwd: Path,
    home: Path,
    config: Path | None,
    flags: Mapping[str, object],
    options: Mapping[str, str] | None = None,
) -> Effective:
    """Read both files, check every layer whole, and put the layers together.

    `home` is BACKPROP_HOME. `flags` are values in the user's units by dotted key (`{"maxRunMinutes": 0.1}`);
    None is "not given". `options` names the option of a key where `option_of` does not.
    Raises BadConfig for the first thing refused, naming the file or option and the key; KeyError for a flag
    that is no key, which is a bug of the caller.
    """
    layers: list[dict[str, tuple[object, Source]]] = [_flag_layer(flags, options or {})]
    notes: list[str] = []
    found = project_file(cwd, config)
    if found is not None:
        layers.append(_file_layer("project", found, home))
        notes += _notes("a project file", found)
    found = user_file(home)
    if found is not None:
        layers.append(_file_layer("user", found, home))
        notes += _notes("a configuration file", found)
    layers.append(_DEFAULT_LAYER)
    chosen = {key.field: next(layer[key.name] for layer in layers if key.name in layer) for key in KEYS}
    values = {field: value for field, (value, _) in chosen.items()}
    sources = {field: source for field, (_, source) in chosen.items()}
    return Effective(msgspec.convert(values, Settings), sources, tuple(notes))


def option_of(name: str) -> str:
    """The command-line option of a key: `gpu.minFreeVramMB` is `--gpu-min-free-vram-mb`."""
    words = "".join(
        f"-{char}" if char.isupper() and not name[at - 1].isupper() else char for at, char in enumerate(name)
    )
    return "--" + words.replace(".", "-").lower()


def _flag_layer(flags: Mapping[str, object], options: Mapping[str, str]) -> dict[str, tuple[object, Source]]:
    layer: dict[str, tuple[object, Source]] = {}
    for name, value in flags.items():
        key = BY_NAME[name]
        if value is not None:
            option = options.get(name) or option_of(name)
            layer[name] = _read(key, value, option), Source("flag", option, value)
    return layer


def _file_layer(
    layer: Literal["project", "user"], found: ConfigFile, home: Path
) -> dict[str, tuple[object, Source]]:
    values: dict[str, tuple[object, Source]] = {}
    for written, value in found.values.items():
        if written in IGNORED:
            continue
        key = BY_NAME.get(ALIASES.get(written, written))
        if key is None:
            raise BadConfig(f"{found.path}: {shown(written)} is not a setting{_did_you_mean(written)}")
        if key.user_only and layer == "project":
            raise BadConfig(
                f"{found.path}: {written} may not be set by a project file, which could then choose what "
                f"runs or is read; set it in {home / USER_NAME} or with {option_of(written)}"
            )
        if key.name in values:
            raise BadConfig(f"{found.path}: {written} is given twice (as {key.name} too); keep one")
        where = f"{found.path}: {written}"
        values[key.name] = _read(key, value, where), Source(layer, str(found.path), value)
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


def _notes(kind: str, found: ConfigFile) -> list[str]:
    return [
        f"{found.path}: {name} is ignored: {kind} {why}"
        for name, why in IGNORED.items()
        if name in found.values
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
