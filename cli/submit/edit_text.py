"""A waiting run as commented TOML, for a person to edit, and back again with the checks that `run` makes."""

import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from backprop.cli.submit.submission import SCRIPT_SUFFIXES, checked, refuse_undecodable
from backprop.scheduler.config.keys import BY_NAME, SettingKey
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import Plan, RunSpec

NONE: Final = "none"
"""TOML has no null."""
LINE: Final = 90
PRIORITY_LIMIT: Final = 1_000_000
GPUS_LIMIT: Final = 1024

SETTINGS: Final[tuple[tuple[str, str, float], ...]] = (
    ("maxRunMinutes", "timebox_s", 60),
    ("overrunPercent", "overrun_pct", 1),
    ("graceSeconds", "grace_s", 1),
    ("stopSignal", "stop_signal", 1),
    ("checkpointEveryMinutes", "checkpoint_every_s", 60),
    ("autoResume", "auto_resume", 1),
    ("maxSegments", "max_segments", 1),
    ("maxTotalMinutes", "max_total_s", 60),
    ("retries", "retries", 1),
    ("stopOnNan", "stop_on_nan", 1),
    ("resumeArg", "resume_arg", 1),
    ("framework", "framework", 1),
    ("gpuMemoryLimit", "gpu_memory_limit", 1),
    ("gpu.minFreeVramMB", "gpu_min_vram_mib", 1),
    ("gpu.maxTempC", "gpu_max_temp_c", 1),
    ("gpu.probe", "gpu_probe", 1),
    ("minFreeRamGB", "min_free_ram_mib", 1024),
    ("maxCpuLoad", "max_cpu_load", 1),
    ("maxParallel", "max_parallel", 1),
)
"""Key of the settings, field of the specification, and how many of the field's units one of the key's is."""
NULLABLE: Final = frozenset({"maxParallel"})
"""Keys that a run may do without although a worker may not."""


@dataclass(frozen=True)
class Edited:
    """What the text says. `environment`: to be put into the run's."""

    name: str
    priority: int
    spec: RunSpec
    environment: Mapping[str, str]


def to_text(run: RunRecord) -> str:
    """The run as TOML, one commented line a key."""
    spec = run.spec
    lines = [
        f"# Run {run.id}, {run.state}. Save and leave the editor to change it; left as it is, nothing changes.",
        "# A line that is missing leaves its value alone.",
        "",
        _line("name", run.name, "for people"),
        _line("priority", run.priority, "higher ones first"),
        "",
        "# The program and its arguments, a word each; executed in " + _one_line(spec.cwd),
        f"command = {_array(spec.argv)}",
        "",
        _line("gpus", spec.gpus, "how many it needs; 0: none"),
        _line("exclusive", spec.exclusive, "no other run of ours beside it on its GPUs"),
        _line(
            "order",
            spec.order,
            "round-robin or fifo: after a segment everybody else's turn, or still its own",
        ),
        "",
        *(_line(key, _shown(spec, field, scale), _expects(BY_NAME[key])) for key, field, scale in SETTINGS),
        "",
        "# Put into, or replaced in, the environment of the shell that queued it:",
        '# NAME = "value"',
        "[env]",
    ]
    return "\n".join(lines) + "\n"


def from_text(text: str, run: RunRecord, path: str) -> Edited:
    """Read the text again. `path`: PATH of the run's environment, for a changed program.

    Raises BadCommand, one line, for whatever `run` would refuse too.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadCommand(f"this is no TOML: {error}") from error
    values = _flat(found)
    environment = _environment(found.get("env", {}))
    spec = run.spec
    changes: dict[str, Any] = {
        **_plain(values, spec),
        **{
            field: _setting(key, values.pop(key), spec, field, scale)
            for key, field, scale in SETTINGS
            if key in values
        },
    }
    if changes.get("gpu_min_vram_mib", spec.gpu_min_vram_mib) != spec.gpu_min_vram_mib:
        changes["gpu_min_vram_declared"] = True
    name = _text("name", values.pop("name", run.name))
    priority = _whole("priority", values.pop("priority", run.priority), -PRIORITY_LIMIT, PRIORITY_LIMIT)
    words = values.pop("command", list(spec.argv))
    if values:
        raise BadCommand(f"{_one_line(next(iter(values)))} is no key of a run; a fresh text lists them all")
    spec = msgspec.structs.replace(spec, **changes)
    return Edited(
        name if name == run.name else checked("name", name),
        priority,
        _with_command(_words(words), spec, path),
        environment,
    )


def _plain(values: dict[str, object], spec: RunSpec) -> dict[str, object]:
    """Those that are no settings, taken out of `values`."""
    order = values.pop("order", spec.order)
    if order not in ("round-robin", "fifo"):
        raise BadCommand(f"order: expected round-robin or fifo; got {_one_line(order)}")
    exclusive = values.pop("exclusive", spec.exclusive)
    if not isinstance(exclusive, bool):
        raise BadCommand(f"exclusive: expected true or false; got {_one_line(exclusive)}")
    gpus = _whole("gpus", values.pop("gpus", spec.gpus), 0, GPUS_LIMIT)
    return {"order": order, "exclusive": exclusive, "gpus": gpus}


def _setting(key: str, value: object, spec: RunSpec, field: str, scale: float) -> object:
    """In our units. What was not changed keeps its very value, whatever its shown form was rounded to."""
    if value == _shown(spec, field, scale):
        return getattr(spec, field)
    known = BY_NAME[key]
    if value == NONE and (known.nullable or key in NULLABLE):
        return None
    try:
        read = known.read(value)
    except (ValueError, OverflowError):
        raise BadCommand(f"{key}: expected {_expects(known)}; got {_one_line(value)}") from None
    return str(read) if isinstance(read, str) else read


def _with_command(words: tuple[str, ...], spec: RunSpec, path: str) -> RunSpec:
    """The specification with another command, and with what is derived from one. Raises BadCommand."""
    if words == spec.argv:
        return spec
    from backprop.cli.submit.source_reader import DiskReader
    from backprop.scheduler.recipes.plan import plan_for

    cwd = Path(spec.cwd)
    program = spec.program if words[0] == spec.argv[0] else _program(words[0], cwd, path)
    named = [word for word in words[1:] if word.endswith(SCRIPT_SUFFIXES)]
    if named and not (cwd / named[0]).is_file() and named[0] not in spec.argv:
        raise BadCommand(f"{named[0]} does not exist in {cwd}")
    script = next((cwd / word for word in named if (cwd / word).is_file()), None)
    before = Path(spec.script) if spec.script is not None else None
    plan = spec.plan
    # A plan that the user has chosen parts of stays.
    if plan is not None and _same(
        plan, plan_for(spec.argv, spec.program, before, cwd, DiskReader(), None, (), spec.resume_arg)
    ):
        plan = plan_for(words, program, script, cwd, DiskReader(), None, (), spec.resume_arg)
    return msgspec.structs.replace(
        spec, argv=words, program=program, script=str(script) if script is not None else None, plan=plan
    )


def _same(plan: Plan, other: Plan) -> bool:
    """Return whether two plans do the same. Their words may differ: another version may have written one of them."""
    return msgspec.structs.replace(plan, why="", note="") == msgspec.structs.replace(other, why="", note="")


def _program(first: str, cwd: Path, path: str) -> str:
    if first.endswith(".py"):
        raise BadCommand(f"{first} is a script; begin with its interpreter, such as python")
    found = shutil.which(str(cwd / first)) if os.sep in first else shutil.which(first, path=path)
    if found is None:
        where = f"in {cwd}" if os.sep in first else "on the run's PATH"
        raise BadCommand(f"{first} is not a program {where}")
    return str(cwd / found)


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadCommand('command: expected a list of words, such as ["python", "train.py"]')
    words: list[str] = []
    for word in cast("list[object]", value):
        if not isinstance(word, str) or "\0" in word:
            raise BadCommand(f"command: {_one_line(word)} is no word; quote it")
        refuse_undecodable(word)
        words.append(word)
    if not words[0]:
        raise BadCommand("command: the program is missing")
    return tuple(words)


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadCommand('env: expected a table of NAME = "value"')
    found: dict[str, str] = {}
    for name, text in cast("dict[str, object]", value).items():
        if not isinstance(text, str) or "\0" in text or not name or "=" in name or "\0" in name:
            raise BadCommand(f'env: expected NAME = "value"; got {_one_line(name)} = {_one_line(text)}')
        found[name] = text
    return found


def _flat(found: dict[str, Any]) -> dict[str, object]:
    """By dotted key, `env` left out."""
    values: dict[str, object] = {}
    for name, value in found.items():
        if name == "env":
            continue
        if isinstance(value, dict):
            inside = cast("dict[str, object]", value)
            values |= {f"{name}.{inner}": one for inner, one in inside.items()}
        else:
            values[name] = value
    return values


def _shown(spec: RunSpec, field: str, scale: float) -> object:
    """A field in its key's units, as TOML has it."""
    value: object = getattr(spec, field)
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value) if isinstance(value, str) else value
    amount = round(value / scale, 6)
    return int(amount) if amount == int(amount) else amount


def _expects(key: SettingKey) -> str:
    told = key.expects.replace(", or null", "").replace(" or null", "")
    return f'{told}, or "{NONE}"' if key.nullable or key.name in NULLABLE else told


def _line(key: str, value: object, told: str) -> str:
    return f"{f'{key} = {_value(value)}':<38}  # {told}"


def _array(words: tuple[str, ...]) -> str:
    texts = [_value(word) for word in words]
    line = f"[{', '.join(texts)}]"
    if len(line) <= LINE:
        return line
    return "[\n" + "".join(f"  {text},\n" for text in texts) + "]"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    return str(value)


def _escaped(char: str) -> str:
    if char in ('"', "\\"):
        return f"\\{char}"
    return f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else char


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadCommand(f"{key}: expected a text in quotes; got {_one_line(value)}")
    return value


def _whole(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadCommand(f"{key}: expected a whole number from {low} to {high}; got {_one_line(value)}")
    return value


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
