"""Runs all checks of the doctor, in the order in which a person would make them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from backprop.cli.doctor.database import (
    check_clock,
    check_database,
    check_folders,
    check_leftovers,
    check_segments,
    check_workers,
)
from backprop.cli.doctor.finding import Finding, Level, bad, guarded
from backprop.cli.doctor.home import (
    check_backups,
    check_disk,
    check_file_system,
    check_home,
    check_locks,
    check_size,
)
from backprop.cli.doctor.login import check_logout, check_sleep, check_terminal, read_login
from backprop.cli.doctor.machine import (
    check_board,
    check_descriptors,
    check_gpus,
    check_processes,
    check_python,
    check_settings,
    check_signals,
    check_start,
    lasting_signal_masks,
    signal_masks,
)
from backprop.cli.doctor.surroundings import check_surroundings
from backprop.cli.doctor.vram import check_vram, try_moving
from backprop.scheduler.config.files import current_directory
from backprop.scheduler.config.settings import load
from backprop.scheduler.errors import BadCommand, BadConfig, HomeRefused
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.worker.probes.client import read_once

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database


def examine(config: Path | None, tested: Callable[[str], None] | None = None) -> list[Finding]:
    """Return the findings of all checks. `config`: the project file to read. `tested`: first have the driver move VRAM,
    and tell it what came of that; without it nothing is changed. Raises BackpropError where that is refused."""
    refused = None
    try:
        home = layout.locate()
    except HomeRefused as error:
        named = os.path.expanduser("~/.backprop")  # noqa: PTH111 - Path.home() raises without one
        home, refused = Home(Path(named)), bad("home", str(error))
    cwd = _cwd()
    of_settings, settings = check_settings(cwd, home.root, config)
    # As a worker reads them: in a helper process, for 10 s at most.
    reading = read_once(settings.gpu_probe.value)
    if tested is not None and refused is None:
        try_moving(home, reading, settings.gpu_probe.value, tested)
    cgroup = _text("/proc/self/cgroup")
    of_home = refused or guarded("home", lambda: check_home(home))
    findings = [guarded("python", lambda: check_python(cwd, settings)), of_settings, of_home]
    if refused is None:
        findings += [
            guarded("file system", lambda: check_file_system(home)),
            guarded("disk", lambda: check_disk(home, settings.min_free_disk_mib)),
        ]
        findings += _inside(home) if of_home.level is not Level.BAD else []
    return [
        *findings,
        guarded("start", lambda: check_start(home)),
        guarded("GPUs", lambda: check_gpus(reading)),
        guarded("suspension", lambda: check_vram(home, reading)),
        guarded("board", check_board),
        guarded("processes", check_processes),
        *check_surroundings(Path("/"), cwd),
        check_descriptors(),
        check_terminal(os.environ, cgroup),
        check_logout(read_login(cgroup)),
        guarded("sleep", lambda: check_sleep(settings.inhibit_sleep)),
    ]


def settings_here(config: Path | None) -> list[tuple[str, str, str]]:
    """Return the settings that apply here as text, with their sources; the defaults where a file is refused."""
    try:
        return load(_cwd() or Path("/"), layout.locate().root, config, {}).describe()
    except (BadConfig, HomeRefused):
        return load(Path("/"), Path("/nonexistent"), None, {}).describe()


def _inside(home: Home) -> list[Finding]:
    """Check the contents of a home that can be trusted."""
    now_s = time.time()
    opened: list[Database] = []
    pids: dict[str, int] = {}

    def database() -> Finding:
        finding, database = check_database(home)
        opened.extend([database] if database is not None else [])
        return finding

    def workers() -> Finding:
        finding, alive = check_workers(home, opened[0])
        pids.update(alive)
        return finding

    of_database: list[tuple[str, Callable[[], Finding]]] = [
        ("folders", lambda: check_folders(home, opened[0])),
        ("workers", workers),
        ("segments", lambda: check_segments(home, opened[0], pids)),
    ]
    try:
        return [
            guarded("locks", lambda: check_locks(home)),
            guarded("database", database),
            guarded("backup", lambda: check_backups(home, now_s)),
            guarded("size", lambda: check_size(home)),
            *(guarded(name, check) for name, check in of_database if opened),
            guarded("leftovers", lambda: check_leftovers(home, now_s)),
            check_signals(
                signal_masks("self"), {worker: lasting_signal_masks(pid) for worker, pid in pids.items()}
            ),
            guarded("clock", lambda: check_clock(opened[0] if opened else None, now_s)),
        ]
    finally:
        for connection in opened:
            connection.close()


def _cwd() -> Path | None:
    try:
        return current_directory()
    except BadCommand:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
