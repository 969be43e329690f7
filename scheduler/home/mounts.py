"""Reads the table of mounts of this process. Reading it waits for no mount, however dead its server is."""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_TABLE: Final = "/proc/self/mountinfo"
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of the table. `kind`: of file system, such as `nfs4`. `options`: of the mount and of its file system."""

    folder: str
    kind: str
    options: tuple[str, ...]


def mounts() -> tuple[Mount, ...]:
    """Return the mounts in the order they were made. Raises OSError."""
    return parse(Path(_TABLE).read_bytes())


def parse(table: bytes) -> tuple[Mount, ...]:
    """Return the mounts of a table as proc_pid_mountinfo(5) describes it; leave out a line that is none."""
    found: list[Mount] = []
    for line in table.splitlines():
        before, _, after = line.partition(b" - ")
        fields, rest = before.split(b" "), after.split(b" ")
        if len(fields) > 5 and len(rest) > 2:
            options = b",".join((fields[5], rest[2])).decode(errors="replace").split(",")
            folder = os.fsdecode(_ESCAPED.sub(lambda match: bytes((int(match[1], 8),)), fields[4]))
            found.append(Mount(folder, rest[0].decode(errors="replace"), tuple(options)))
    return tuple(found)
