"""Containers that share a home: a pid of one means another process in the other, and is never signalled there."""

import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from backprop.scheduler.store.connection import Database
from backprop.worker.checkpoints import backups
from backprop.worker.executor import locks
from backprop.worker.executor.base import Life
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.supervisor import process_tree
from tests.support.bare_supervisor import LISTENER, Stand
from tests.support.harness import alive, wait_until

ELSEWHERE = "pid:[1]"
EXIT_ELSEWHERE = 4
CONTAINER = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
ORPHANS = """
    "$@" & supervisor=$!
    until [ -e die ]; do sleep 0.05; done
    kill -9 $supervisor
    echo > died
    while :; do sleep 0.1; done
"""


@pytest.fixture
def stranger() -> Generator[process_tree.Process]:
    with subprocess.Popen(["sleep", "600"]) as child:
        process = process_tree.identify(child.pid)
        assert process is not None
        yield process
        child.kill()


@pytest.mark.parametrize("namespace", [ELSEWHERE, None])
def test_a_worker_signals_no_process_of_another_namespace(
    database: Database, stranger: process_tree.Process, namespace: str | None
) -> None:
    home = database.home
    folder = home.segment_folder("r1", 1)
    folder.mkdir(parents=True)
    identity = [stranger.pid, stranger.start_ticks]
    note = {"boot_id": process_tree.boot_id(), "pid_namespace": namespace, "started_at_s": 1.0}
    (folder / "processes.json").write_text(json.dumps(note | {"supervisor": identity, "leader": identity}))
    lock = locks.take(home.run_lock("r1"))
    assert lock is not None
    try:
        executor = LocalExecutor(home)
        os.utime(folder, (0, 0))
        assert executor.poll("r1", 1) == (Life.ALIVE, None), "its lock is held"
        assert executor.has_begun("r1", 1)
        assert executor.pids("r1", 1) == (frozenset() if namespace else frozenset({stranger.pid}))
        for verb in (executor.ask, executor.kill, executor.pause, executor.replace):
            verb("r1", 1)
    finally:
        os.close(lock)
    _, status = os.waitpid(stranger.pid, os.WNOHANG if namespace else 0)
    assert (status == 0) is (namespace is not None), "a note of 0.1.0 is one from here"


def test_a_supervisor_adopts_no_leader_of_another_namespace(stand: Stand) -> None:
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace to be had")
    stand.python(LISTENER)
    script = f"cd {stand.work}; {ORPHANS}"
    stand.within = (*CONTAINER, "sh", "-c", script, "sh")
    stand.start()
    stand.wait_for_log("ready")
    assert stand.known()["pid_namespace"] != process_tree.pid_namespace()
    (stand.work / "die").touch()
    wait_until((stand.work / "died").exists)
    leaders = stand.left()
    stand.within = ()
    assert stand.adopt().wait(timeout=30) == EXIT_ELSEWHERE
    (stand.segment / "processes.json").unlink()
    assert stand.adopt().wait(timeout=30) == 0, "its cookie is seen from outside, and it is left alone"
    assert all(alive(pid) for pid in leaders)
    assert leaders
    assert not (stand.segment / "exit.json").exists()


def test_drafts_of_another_namespace_are_left_alone(tmp_path: Path) -> None:
    elsewhere, dead = tmp_path / ".draft-1-999999999", tmp_path / ".draft-999999999"
    for draft in (elsewhere, dead):
        draft.mkdir()
    backups._clear_drafts(tmp_path)
    assert elsewhere.exists()
    assert not dead.exists()
