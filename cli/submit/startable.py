"""Checks that the kernel can start a program, so that what cannot is refused when it is queued and not at night.

A run that is queued again (`resume`, `release`) is looked at once more, for its script may have changed meanwhile. What
may come back by itself, a disk or an environment that is being rebuilt, is no reason to refuse: the run waits for it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from backprop.cli.render import answers
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home import run_folder

if TYPE_CHECKING:
    from backprop.cli.options.run_selection import Selection
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.spec import RunSpec
    from backprop.scheduler.store.connection import Database

HEAD_BYTES: Final = 256
"""What the kernel reads of a program to find its interpreter."""


def refuse_unstartable(program: str, shown: str, environment: Mapping[str, str]) -> None:
    """Refuse a script without a first line that names an interpreter which is here. Raises BadCommand.

    `program`: an absolute path. `shown`: what the user typed. `environment`: the run's; its PATH is where `env` looks.
    Programs that are not text are left to the kernel, and so is what cannot be read.
    """
    head = _head(program)
    if head is None or b"\0" in head:
        return
    if not head.startswith(b"#!"):
        what = "has no first line such as #!/bin/sh" if head else "is empty"
        raise BadCommand(
            f"{shown} {what}, so it cannot be started; add one, or name its interpreter: bash {shown}"
        )
    line, newline, _ = head.partition(b"\n")
    if newline and line.endswith(b"\r"):
        raise BadCommand(
            f"{shown} has Windows line ends, which no interpreter's name has; convert it: sed -i 's/\\r$//' {shown}"
        )
    words = os.fsdecode(line[2:]).split()
    if newline and (missing := _missing(program, words, environment)) is not None:
        raise BadCommand(f"{shown} names {missing} in its first line; correct it, or name an interpreter")


def startable(
    home: "Home", database: "Database", picked: "Selection"
) -> "tuple[Selection, list[tuple[str, str]]]":
    """Return a selection without the runs that cannot be started, and their ids with what is wrong."""

    from backprop.scheduler.store.reads import queries

    # The members of a sweep share their program and script.
    told: dict[tuple[str, ...], str | None] = {}
    wrong: dict[str, str] = {}
    for run in queries.runs_by_id(database, [run.id for run in picked.able]):
        spec = run.spec
        command = (spec.cwd, spec.program, spec.script or "", spec.code or "")
        if command not in told:
            told[command] = _what_is_wrong(spec, home.run_folder(run.id))
        if (what := told[command]) is not None:
            wrong[run.id] = what
    able = [run for run in picked.able if run.id not in wrong]
    return msgspec.structs.replace(picked, able=able), list(wrong.items())


def say_unstartable(wrong: "Sequence[tuple[str, str]]") -> int:
    """Print which runs were left as they are and why; return the exit code, 0 when there is none."""
    for run_id, what in wrong:
        answers.refuse(run_id, f"run {run_id}: {what}")
    return BadCommand.exit_code if wrong else 0


def _what_is_wrong(spec: "RunSpec", folder: Path) -> str | None:
    """Return why a run cannot be started until its user has done something; None where it can, or may wait. `folder`:
    the run's."""
    from backprop.worker.environment import presence

    removed = presence.removed_for_start(spec, presence.noted_mounts(folder))
    if removed is not None:
        return f"{removed.what} {removed.path} {removed.trouble}; put it back"
    try:
        environment = run_folder.read_environment(folder)
    except OSError:
        return None  # its worker waits for that file
    if (
        presence.is_copied(spec, spec.program)
        or presence.missing_part(presence.PROGRAM, spec.program) is not None
        or presence.missing_named_interpreter(spec.program, environment) is not None
    ):
        return None
    try:
        refuse_unstartable(spec.program, spec.program, environment)
    except BadCommand as error:
        return str(error)
    return None


def _missing(program: str, words: list[str], environment: Mapping[str, str]) -> str | None:
    """Return which interpreter of a first line is not here and why; None when it is, or when that is hard to tell."""
    from backprop.worker.environment.presence import missing_named_interpreter

    if not words:
        return "no interpreter"
    if not _executable(words[0]):
        return f"{words[0]}, which is {'not executable' if Path(words[0]).exists() else 'not here'},"
    named = missing_named_interpreter(program, environment)
    return f"{named.path}, which is not on PATH," if named is not None else None


def _executable(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)


def _head(program: str) -> bytes | None:
    """Return the beginning of a program; None when it cannot be read."""
    try:
        handle = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(handle, HEAD_BYTES)
    except OSError:
        return None
    finally:
        os.close(handle)
