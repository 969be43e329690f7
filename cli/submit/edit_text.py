"""Writes a waiting run as commented TOML for the editor, and reads the text back with the checks that `run` makes."""

import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from backprop.cli.options.numbers import MOST_GPUS, MOST_PRIORITY
from backprop.cli.submit.edit_values import (
    NONE,
    array,
    by_dotted_key,
    environment,
    in_units,
    line,
    one_line,
    text,
    whole,
)
from backprop.cli.submit.names import checked_run_name, refuse_undecodable
from backprop.cli.submit.shell import SCRIPT_SUFFIXES
from backprop.cli.submit.startable import refuse_unstartable
from backprop.scheduler.config.keys import KEYS, SettingKey
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import NO_TIMEBOX_S, Plan, RunSpec

SETTINGS: Final = tuple(key for key in KEYS if key.editable)


class Edited(msgspec.Struct, frozen=True):
    """What the text says. `environment`: to be put into the run's."""

    name: str
    priority: int
    spec: RunSpec
    environment: Mapping[str, str]


def to_text(run: RunRecord) -> str:
    """Return the run as TOML, one commented line per key."""
    spec = run.spec
    lines = [
        f"# Run {run.id}, {run.state}. Change it, save it and leave the editor; an unchanged text changes nothing.",
        "# If a line is missing, its value stays.",
        "",
        line("name", run.name, "display name"),
        line("priority", run.priority, "higher ones first"),
        "",
        "# The program and its arguments, one word each; executed in " + one_line(spec.cwd),
        f"command = {array(spec.argv)}",
        "",
        line("gpus", spec.gpus, "how many it needs; 0: none"),
        line("exclusive", spec.exclusive, "true: share its GPUs with no other Backprop run"),
        line(
            "order", spec.order, "after a segment, round-robin: to the back of the queue; fifo: keep its turn"
        ),
        "",
        *(line(key.name, _shown(spec, key), _expects(key)) for key in SETTINGS),
        "",
        "# Added to, or replaced in, the environment of the shell that queued it:",
        '# NAME = "value"',
        "[env]",
    ]
    return "\n".join(lines) + "\n"


def from_text(edited: str, run: RunRecord, path: str) -> Edited:
    """Read the text again. `path`: PATH of the run's environment, for a changed program.

    Raises BadCommand, one line, for whatever `run` would refuse too.
    """
    try:
        tables = tomllib.loads(edited)
    except tomllib.TOMLDecodeError as error:
        raise BadCommand(f"not valid TOML: {error}") from error
    return from_values(by_dotted_key(tables), environment(tables.get("env", {})), run, path)


def from_values(values: dict[str, object], variables: Mapping[str, str], run: RunRecord, path: str) -> Edited:
    """Return the run with other values, by key, and further variables. `path`: as above. Raises BadCommand."""
    values = dict(values)
    spec = run.spec
    changes = _plain(values, spec) | {
        key.field: _setting(key, values.pop(key.name), spec) for key in SETTINGS if key.name in values
    }
    if changes.get("gpu_min_vram_mib", spec.gpu_min_vram_mib) != spec.gpu_min_vram_mib:
        changes["gpu_min_vram_declared"] = True
    name = text("name", values.pop("name", run.name))
    priority = whole("priority", values.pop("priority", run.priority), -MOST_PRIORITY, MOST_PRIORITY)
    words = values.pop("command", list(spec.argv))
    if values:
        raise BadCommand(f"{one_line(next(iter(values)))} is not a key of a run; a fresh text lists them all")
    spec = msgspec.structs.replace(spec, **changes)
    return Edited(
        name if name == run.name else checked_run_name("name", name),
        priority,
        _with_command(_words(words), spec, path),
        variables,
    )


def _plain(values: dict[str, object], spec: RunSpec) -> dict[str, Any]:
    """Take what is not a setting out of `values`; return it by field."""
    order = values.pop("order", spec.order)
    if order not in ("round-robin", "fifo"):
        raise BadCommand(f"order: expected round-robin or fifo; got {one_line(order)}")
    exclusive = values.pop("exclusive", spec.exclusive)
    if not isinstance(exclusive, bool):
        raise BadCommand(f"exclusive: expected true or false; got {one_line(exclusive)}")
    gpus = whole("gpus", values.pop("gpus", spec.gpus), 0, MOST_GPUS)
    return {"order": order, "exclusive": exclusive, "gpus": gpus}


def _setting(key: SettingKey, value: object, spec: RunSpec) -> object:
    """Return the field's value. An unchanged text keeps the very value, whatever its shown form was rounded to."""
    if value == _shown(spec, key):
        return getattr(spec, key.field)
    if value == NONE and (key.nullable or key.worker_limit):
        return None
    try:
        read = key.read(value)
    except (ValueError, OverflowError):
        raise BadCommand(f"{key.name}: expected {_expects(key)}; got {one_line(value)}") from None
    return str(read) if isinstance(read, str) else read


def _shown(spec: RunSpec, key: SettingKey) -> object:
    value = getattr(spec, key.field)
    return NONE if key.null_flag and value == NO_TIMEBOX_S else in_units(value, key.scale)


def _expects(key: SettingKey) -> str:
    expects = key.expects.replace(", or null", "").replace(" or null", "")
    return f'{expects}, or "{NONE}"' if key.nullable or key.worker_limit or key.null_flag else expects


def _with_command(words: tuple[str, ...], spec: RunSpec, path: str) -> RunSpec:
    """Return the specification with another command and what follows from it. Raises BadCommand."""
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
    program = shutil.which(str(cwd / first)) if os.sep in first else shutil.which(first, path=path)
    if program is None:
        where = f"in {cwd}" if os.sep in first else "on the run's PATH"
        raise BadCommand(f"{first} is not a program {where}")
    refuse_unstartable(str(cwd / program), first, {"PATH": path})
    return str(cwd / program)


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadCommand('command: expected a list of words, such as ["python", "train.py"]')
    words: list[str] = []
    for word in cast("list[object]", value):
        if not isinstance(word, str) or "\0" in word:
            raise BadCommand(f"command: {one_line(word)} is not a word; quote it")
        refuse_undecodable(word)
        words.append(word)
    if not words[0]:
        raise BadCommand("command: the program is missing")
    return tuple(words)
