"""Unpacks a past version: its program, which runs beside today's, and a home that it left behind.

`home_0_1_0/program.tar.xz` is what its wheel holds, byte for byte. It runs from a folder of its own on the packages of
the test's environment, which hold what it imports: today's program needs the same ones.

`home_0_1_0/home.tar.xz` is a home and the project beside it, recorded in the folder `PLACE` by `record.py`. A home
holds absolute paths: of scripts, checkpoints, directories and the interpreter. Here it is moved before anybody opens
it: the one word `PLACE` becomes the test's folder in every text value of the database and in every other file but
logs, which hold none. That is the only thing done to it, and it lets tests run at once, under any user, without a
fixed place in /tmp that somebody else may own. Its interpreter is `PLACE/bin/python`, a link made anew. The boot that
its processes are known by was made zero when it was recorded: no machine has had it, as after a reboot.
"""

import contextlib
import json
import os
import sqlite3
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

FIXTURE = Path(__file__).parent.parent / "fixtures" / "home_0_1_0"
TRAIN = FIXTURE / "train.py"
PLACE = "/tmp/backprop-home-0.1.0"
SQLITE = b"SQLite format 3\0"

ENTRY = """\
import os, sys
sys.path.insert(0, {program!r})
if sys.argv[1:2] == ["worker"]:
    # Its probe helper is `python -m backprop...`. No other command passes the variable on, or runs would keep it.
    os.environ["PYTHONPATH"] = {program!r}
import backprop.cli.main
if sys.argv[1:] == ["--where"]:
    sys.exit(print(backprop.cli.main.__file__))
backprop.cli.main.main()
"""
"""The first entry of `sys.path` wins over an installed package, and over the finder of an editable one, which
setuptools puts last. `--where` tells what has won."""


def unpack_program(folder: Path) -> tuple[str, ...]:
    """Put 0.1.0 into `folder`, which is made. Return the command that stands in for `backprop`."""
    _extract("program.tar.xz", folder)
    entry = folder / "backprop-0.1.0.py"
    entry.write_text(ENTRY.format(program=str(folder)))
    return (sys.executable, str(entry))


def unpack_home(folder: Path) -> dict[str, Any]:
    """Put the recorded home into `folder` as `home`, its project as `project`. Return what 0.1.0 said of it."""
    _extract("home.tar.xz", folder)
    for path in sorted(folder.rglob("*")):
        if stat.S_ISREG(path.lstat().st_mode) and path.name != "log":
            _move(path, str(folder))
    link_python(folder)
    _restore_times(folder / "home")
    return json.loads((folder / "expected.json").read_text())


def rows(home: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Query a home's database past any program."""
    with contextlib.closing(sqlite3.connect(home / "backprop.db", timeout=10)) as database:
        return database.execute(query, values).fetchall()


def link_python(folder: Path) -> None:
    """Make the interpreter of the home's scripts: the bare one suffices for all of them."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "python").symlink_to(os.path.realpath(sys.executable))


def _extract(name: str, folder: Path) -> None:
    with tarfile.open(FIXTURE / name) as archive:
        # As recorded: modes count, and a home has a FIFO. `extractall(filter=…)` is unknown before Python 3.11.4.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(folder)


def _move(path: Path, folder: str) -> None:
    content = path.read_bytes()
    if content.startswith(SQLITE):
        _move_rows(path, folder)
    elif PLACE.encode() in content:
        path.write_bytes(content.replace(PLACE.encode(), folder.encode()))


def _move_rows(path: Path, folder: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = database.execute(f"PRAGMA table_info({table})").fetchall()
            for name in (name for _, name, kind, *_ in columns if kind == "TEXT"):
                change = f"UPDATE {table} SET {name} = replace({name}, ?, ?) WHERE instr({name}, ?)"
                database.execute(change, (PLACE, folder, PLACE))


def _restore_times(home: Path) -> None:
    """Restore file times: a checkpoint is known by its time to the nanosecond, which tarfile does not keep."""
    saved = "SELECT path, mtime_ns FROM checkpoints WHERE refused IS NULL ORDER BY serial"
    for name, mtime_ns in rows(home, saved):
        if Path(name).exists():
            os.utime(name, ns=(mtime_ns, mtime_ns))
