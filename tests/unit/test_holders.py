"""Processes of others that hold a GPU: named by what any user may read, with how long they have done nothing."""

import getpass
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backprop.cli.render.terminal_text import safe
from backprop.scheduler.store import samples
from backprop.scheduler.store.connection import Database
from backprop.worker.machine.holders import Holder, holders_of
from tests.support.governor_cases import GIB, gpu, machine

SLEEPS = "import time; print(flush=True); time.sleep(60)"
NOW_S = time.time() + 2 * 3600.0


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[int]:
    """A process that looks like a Jupyter kernel, with a secret in its command line."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "ipykernel_launcher.py").write_text(SLEEPS)
    words = [sys.executable, str(folder / "ipykernel_launcher.py"), "--token=hf_secret"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def watch(database: Database, utilisation_pct: int, *before_s: float) -> None:
    for age_s in before_s:
        card = gpu(free=GIB, utilisation_pct=utilisation_pct)
        assert samples.keep(database, machine(card), NOW_S - age_s)


def test_a_kernel_that_does_nothing_is_named_with_its_time(database: Database, kernel: int) -> None:
    watch(database, 40, 3300.0)
    watch(database, 0, *range(3120, 0, -300))
    card = gpu(free=GIB, utilisation_pct=0, used_by_pid=((kernel, 5222), (os.getpid(), 900)))
    (holder,) = holders_of(card, {os.getpid()}, database, NOW_S)
    assert holder.user == getpass.getuser()
    assert (holder.vram_mib, holder.utilisation_pct, holder.known_as) == (5222, 0, "a Jupyter kernel")
    assert holder.sentence() == (
        f"{holder.command} {kernel}, {getpass.getuser()}, 5.1 GiB, 0 % for 52 min: a Jupyter kernel"
    )
    assert holder.command is not None
    assert holder.command.endswith(" ipykernel_launcher.py")
    assert "secret" not in str(holder)


def test_of_a_time_that_nobody_watched_nothing_is_said(database: Database, kernel: int) -> None:
    card = gpu(free=GIB, utilisation_pct=0, used_by_pid=((kernel, 5222),))
    assert holders_of(card, (), database, NOW_S)[0].idle_s is None
    assert holders_of(card, (), None, NOW_S)[0].idle_s is None
    watch(database, 0, 3000.0, 600.0, 300.0)
    assert holders_of(card, (), database, NOW_S)[0].idle_s == pytest.approx(600.0, abs=1.0)


def test_nobody_has_been_idle_for_longer_than_it_lives(database: Database, kernel: int) -> None:
    now_s = time.time() + 30.0
    for age_s in (600.0, 300.0, 10.0):
        assert samples.keep(database, machine(gpu(free=GIB, utilisation_pct=0)), now_s - age_s)
    card = gpu(free=GIB, utilisation_pct=0, used_by_pid=((kernel, 5222),))
    (holder,) = holders_of(card, (), database, now_s)
    assert holder.idle_s is not None
    assert 25.0 < holder.idle_s < 60.0


def test_each_process_has_its_own_load_where_the_driver_tells_it(kernel: int) -> None:
    both = ((kernel, 5222), (os.getpid(), None))
    card = gpu(free=GIB, utilisation_pct=80, used_by_pid=both, busy_by_pid=((kernel, 0), (os.getpid(), 80)))
    told = {holder.pid: holder.utilisation_pct for holder in holders_of(card, (), None)}
    assert told == {kernel: 0, os.getpid(): 80}
    # Without that, the load of the card is nobody's in particular.
    untold = gpu(free=GIB, utilisation_pct=80, used_by_pid=both)
    assert {holder.utilisation_pct for holder in holders_of(untold, (), None)} == {None}


def test_a_process_that_cannot_be_seen_has_a_pid_alone() -> None:
    card = gpu(free=GIB, utilisation_pct=7, used_by_pid=((2**22 + 5, 3000),))
    (holder,) = holders_of(card, (), None)
    assert holder == Holder(pid=2**22 + 5, vram_mib=3000)
    assert holder.sentence() == f"a process {2**22 + 5}, 2.9 GiB"


def test_pids_of_another_namespace_are_not_taken_for_ours() -> None:
    card = gpu(free=GIB, utilisation_pct=7, used_by_pid=((2**22 + 5, 3000), (os.getpid(), 4000)))
    assert {holder.user for holder in holders_of(card, (), None)} == {None}


def test_what_a_program_is_called_is_escaped() -> None:
    holder = Holder(pid=7, user="ada", command="x\x1b[2J\n", vram_mib=1024)
    assert "\x1b" not in safe(holder.sentence())
    assert "\n" not in safe(holder.sentence())
