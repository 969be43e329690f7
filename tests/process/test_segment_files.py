"""The segment's files: what the worker writes the supervisor reads, and the other way round, in a real segment."""

import json
import os
import signal
import sys
import textwrap
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backprop.worker.executor import segment_files
from backprop.worker.executor.segment_files import ExitRecord, OrderFile, StopFile
from tests.support.bare_supervisor import LISTENER, Stand

STRAGGLER = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", os.getcwd(), oct(os.umask(0)), os.environ["ADDED"], os.environ["HOME"], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def stand(tmp_path: Path) -> Generator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.close()


def order(stand: Stand, body: str, **changes: object) -> OrderFile:
    """Write the order of a Python program, by the worker's writer."""
    (stand.run / "spec.json").write_text(json.dumps({"environment": stand.environment}))
    cookie = (stand.cookie, "BACKPROP_SEGMENT=1")
    written = OrderFile(
        spec=str(stand.run / "spec.json"),
        program=sys.executable,
        argv=(sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(body)),
        cwd=str(stand.work),
        umask=0o027,
        environment={"ADDED": "yes"} | {entry.partition("=")[0]: entry.partition("=")[2] for entry in cookie},
        cookie=cookie,
        timebox_s=600.0,
        promised_mib=512,
        grace_s=20.0,
        stop_signal=int(signal.SIGINT),
    )
    written = msgspec.structs.replace(written, **changes)
    segment_files.write_order(stand.segment, written)
    return written


def raw(stand: Stand, name: str) -> dict[str, Any]:
    return json.loads((stand.segment / name).read_text())


def fields(record: msgspec.Struct | None) -> dict[str, Any]:
    """All fields of a record, as JSON has them."""
    assert record is not None
    return json.loads(msgspec.json.encode(record))


def test_every_field_is_read_by_the_other_side(stand: Stand) -> None:
    written = order(stand, STRAGGLER, timebox_s=1.0, grace_s=0.2)
    assert raw(stand, "order.json") == fields(written)
    assert segment_files.read_order(stand.segment) == written
    supervisor = stand.start()
    stand.wait_for_log(f"ready {stand.work} 0o27 yes /nowhere")
    processes = segment_files.read_processes(stand.segment)
    assert fields(processes) == raw(stand, "processes.json")
    assert processes is not None
    assert (processes.supervisor[0], processes.leader[0]) == (supervisor.pid, stand.leader())
    stand.ended()
    assert fields(segment_files.read_stop(stand.segment)) == raw(stand, "stop.json")
    record = segment_files.read_exit(stand.segment)
    without_leader = {"could_not_start": None, "errno": None, "path": None}
    without_cluster = {"ended_by": None}
    assert fields(record) == raw(stand, "exit.json") | without_leader | without_cluster
    assert record is not None
    assert (record.asked, record.signal, record.escalated) == ("timebox", signal.SIGKILL, "kill")


def test_an_end_before_any_start_is_read(stand: Stand) -> None:
    order(stand, "pass", cwd=str(stand.work / "missing"))
    stand.start()
    stand.ended()
    written, record = raw(stand, "exit.json"), fields(segment_files.read_exit(stand.segment))
    assert written.keys() <= record.keys()
    assert record == fields(ExitRecord()) | written
    assert record["errno"] == 2


def test_the_stop_signal_and_the_cookie_of_an_order_are_obeyed(stand: Stand) -> None:
    order(stand, LISTENER.replace("SIGINT", "SIGUSR1"), stop_signal=int(signal.SIGUSR1))
    first = stand.start()
    stand.wait_for_log("ready")
    (stand.segment / "processes.json").unlink()
    first.kill()
    first.wait()
    second = stand.adopt()
    assert stand.known()["supervisor"][0] == second.pid, "found by the cookie alone"
    second.send_signal(signal.SIGTERM)
    assert stand.ended()["asked"] == "asked"
    assert "heard 1" in stand.log()


ORDER = {"format": 1, "spec": "/s", "program": "/p", "argv": ["/p"], "cwd": "/", "umask": 18, "cookie": ["A=1"],
         "environment": {"A": "1"}, "timebox_s": 1, "grace_s": 1, "stop_signal": 2}  # fmt: skip
PROCESSES = {"boot_id": "b", "supervisor": [1, 2], "leader": [3, 4], "started_at_s": 5.5}
STOP = {"asked": "asked", "at_s": 7}
READERS = {
    "order.json": (segment_files.read_order, ORDER),
    "processes.json": (segment_files.read_processes, PROCESSES),
    "stop.json": (segment_files.read_stop, STOP),
    "exit.json": (segment_files.read_exit, {}),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_version_is_read(tmp_path: Path, name: str) -> None:
    """One that has a field more, and none of those that are optional."""
    read, body = READERS[name]
    (tmp_path / name).write_text(json.dumps(body | {"of_a_later_version": [1]}))
    record = fields(read(tmp_path))
    assert {key: record[key] for key in body} == body


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"asked": 1, "boot_id": 1, "spec": 1}'])
def test_a_missing_or_damaged_file_is_none(tmp_path: Path, name: str, body: bytes) -> None:
    read, _ = READERS[name]
    assert read(tmp_path) is None
    (tmp_path / name).write_bytes(body)
    assert read(tmp_path) is None


def test_an_order_is_written_whole_or_not_at_all(stand: Stand) -> None:
    victim = stand.work / "victim"
    (stand.segment / "order.json.tmp").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        order(stand, "pass")
    assert not victim.exists()
    assert segment_files.read_order(stand.segment) is None
    (stand.segment / "order.json.tmp").unlink()
    order(stand, "pass")
    assert os.listdir(stand.segment) == ["order.json"]  # noqa: PTH208
    assert (stand.segment / "order.json").stat().st_mode & 0o777 == 0o600


def test_what_0_1_0_did_not_write_is_taken_as_0_1_0_took_it() -> None:
    assert StopFile(asked="asked", at_s=1.0).sent
    assert ExitRecord().seen_to_end


@pytest.mark.parametrize("name", ["order", "processes", "stop", "exit"])
def test_a_file_that_cannot_be_read_is_not_a_missing_one(tmp_path: Path, name: str) -> None:
    read = getattr(segment_files, f"read_{name}")
    assert read(tmp_path) is None
    path = tmp_path / f"{name}.json"
    path.write_text("{")
    assert read(tmp_path) is None, "damaged"
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=f"{name}.json"):
        read(tmp_path)
    assert read(Path("/dev/null/1")) is None, "no folder on the way"
