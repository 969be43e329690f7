"""Checks that the kernel can start a program, so that what cannot is refused when it is queued and not at night."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.errors import BadCommand

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
    if newline and (missing := _missing(words, environment)) is not None:
        raise BadCommand(f"{shown} names {missing} in its first line; correct it, or name an interpreter")


def _missing(words: list[str], environment: Mapping[str, str]) -> str | None:
    """Return which interpreter of a first line is not here and why; None when it is, or when that is hard to tell."""
    if not words:
        return "no interpreter"
    if not _executable(words[0]):
        return f"{words[0]}, which is {'not executable' if Path(words[0]).exists() else 'not here'},"
    if Path(words[0]).name != "env":
        return None
    rest = words[2:] if words[1:2] == ["-S"] else words[1:]
    if not rest or rest[0].startswith("-") or "=" in rest[0] or os.sep in rest[0]:
        return None
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    found = any(_executable(f"{folder or '.'}/{rest[0]}") for folder in folders)
    return None if found else f"{rest[0]}, which is not on PATH,"


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
