"""All of the doctor's questions, in the order in which a person would ask them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from backprop.cli.doctor import database as checks_queue
from backprop.cli.doctor import home as checks_home
from backprop.cli.doctor import login, machine
from backprop.cli.doctor.finding import Finding, Level, bad, guarded
from backprop.scheduler.errors import HomeRefused
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database


def examine(config: Path | None) -> list[Finding]:
    """Every check, in the order in which a person would ask. `config`: the project file to read."""
    refused = None
    try:
        home = layout.locate()
    except HomeRefused as error:
        home, refused = Home(Path.home() / ".backprop"), bad("home", str(error))
    cwd = _cwd()
    settings, chosen = machine.settings_here(cwd, home.root, config)
    cgroup = _text("/proc/self/cgroup")
    found = [
        guarded("python", lambda: machine.python(cwd, chosen)),
        settings,
        refused or guarded("home", lambda: checks_home.home_itself(home)),
    ]
    if refused is None:
        found += [
            guarded("file system", lambda: checks_home.file_system(home)),
            guarded("disk", lambda: checks_home.space(home, chosen.min_free_disk_mib)),
        ]
        found += _inside(home) if found[2].level is not Level.BAD else []
    return [
        *found,
        guarded("GPUs", lambda: machine.gpus(chosen.gpu_probe.value)),
        guarded("processes", machine.processes),
        machine.descriptors(),
        login.terminal(os.environ, cgroup),
        login.logout(login.read_login(cgroup)),
    ]


def _inside(home: Home) -> list[Finding]:
    """What is in a home that can be trusted."""
    now_s = time.time()
    opened: list[Database] = []
    pids: dict[str, int] = {}

    def database() -> Finding:
        seen = checks_queue.database(home)
        opened.extend([seen.database] if seen.database is not None else [])
        return seen.finding

    def workers() -> Finding:
        finding, alive = checks_queue.workers(home, opened[0])
        pids.update(alive)
        return finding

    asked: list[tuple[str, Callable[[], Finding]]] = [
        ("folders", lambda: checks_queue.run_folders(home, opened[0])),
        ("workers", workers),
        ("segments", lambda: checks_queue.segments(home, opened[0], pids)),
    ]
    try:
        return [
            guarded("locks", lambda: checks_home.locking(home)),
            guarded("database", database),
            guarded("backup", lambda: checks_home.backups(home, now_s)),
            guarded("size", lambda: checks_home.size(home)),
            *(guarded(name, question) for name, question in asked if opened),
            guarded("leftovers", lambda: checks_queue.leftovers(home, now_s)),
            _signals(pids),
            guarded("clock", lambda: checks_queue.clock(opened[0] if opened else None, now_s)),
        ]
    finally:
        for one in opened:
            one.close()


def _signals(pids: dict[str, int]) -> Finding:
    heard = machine.deafness_of
    return machine.signals(heard("self"), {worker: heard(pid) for worker, pid in pids.items()})


def _cwd() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
