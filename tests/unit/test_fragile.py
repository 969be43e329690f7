"""What would notice that it stood still is not suspended by the end of a box; RAM counts every limit above us."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePath

import msgspec
import pytest

from backprop.cli.submit.source_reader import DiskReader
from backprop.scheduler.recipes.plan import plan_for
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.spec import Plan
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.probes import host
from backprop.worker.segments.boxes import fragile
from backprop.worker.segments.boxes.fragile import why_fragile
from backprop.worker.segments.boxes.suspender import ram_mib
from tests.support.harness import wait_until
from tests.support.store_rows import SPEC, add_run, claimed


@pytest.fixture
def live(database: Database) -> Iterator[tuple[RunRecord, SegmentRecord]]:
    run = claimed(database, add_run(database, "r1"))
    segment = queries.segment(database, "r1", 1)
    assert segment is not None
    yield run, segment


def test_an_ordinary_run_is_not(live: tuple[RunRecord, SegmentRecord]) -> None:
    assert why_fragile(*live, {os.getpid()}) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"import torch.distributed as dist\n", "it trains by torch.distributed"),
        (b"p.add_argument('--max-time')\n", "it has a limit on wall-clock time"),
        (b"trainer = Trainer(max_time='00:12:00:00')\n", "it has a limit on wall-clock time"),
        (b"began = time.time()\n", ""),
    ],
)
def test_what_its_text_says(tmp_path: Path, text: bytes, why: str) -> None:
    script = tmp_path / "train.py"
    script.write_bytes(text)
    cwd = PurePath(tmp_path)
    plan = plan_for(("python", str(script)), "/usr/bin/python", script, cwd, DiskReader())
    assert plan.fragile == why


def test_what_is_seen_of_it(live: tuple[RunRecord, SegmentRecord]) -> None:
    run, segment = live
    spec = msgspec.structs.replace(SPEC, plan=Plan(fragile="x"))
    assert why_fragile(msgspec.structs.replace(run, spec=spec), segment, ()) == "x"
    spec = msgspec.structs.replace(SPEC, program="/usr/bin/timeout")
    assert why_fragile(msgspec.structs.replace(run, spec=spec), segment, ()) is not None
    two = msgspec.structs.replace(segment, gpu_uuids=("a", "b"))
    assert why_fragile(run, two, ()) == "it runs on several GPUs"
    if shutil.which("timeout") is not None:
        waits = subprocess.Popen(["timeout", "60", "sleep", "60"])
        wait_until(lambda: why_fragile(run, segment, {waits.pid}) == "a timeout stands in front of it")
        waits.kill()
        waits.wait()


def test_a_connection_to_this_machine_is_none_to_another(
    live: tuple[RunRecord, SegmentRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert why_fragile(*live, {os.getpid()}) is None
        monkeypatch.setattr(fragile, "_LOCAL", fragile._SOCKET)
        assert why_fragile(*live, {os.getpid()}) == "it is connected to another machine"


def test_ram_is_counted_with_what_is_shared_once() -> None:
    assert ram_mib([os.getpid()]) > 5
    assert ram_mib([1 << 22]) == 0


def test_the_least_limit_above_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    for name, limit, used in (("a", "max", 0), ("a/b", str(64 * host.MIB), 40 * host.MIB)):
        folder = tmp_path / "mounted" / name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {8 * host.MIB}\n")
    assert list(host._cgroup_memory(tmp_path / "none", tmp_path)) == []
    limits = list(host._cgroup_memory(own, tmp_path / "mounted"))
    assert limits == [(64 * host.MIB, 32 * host.MIB)]
    monkeypatch.setattr(host, "_cgroup_memory", lambda *_: iter(limits))
    assert host._ram() == (32, 64)
