"""The supervisor records what the kernel has killed for want of memory while its segment lived."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backprop.worker.supervisor import oom_kills
from tests.support.bare_supervisor import LISTENER, Stand

LITTLE = 64 << 20
GROWS = """
    kept = []
    while True:
        kept.append(bytearray(b"x" * (1 << 20)))
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory."""
    own = oom_kills.own_group()
    if own is None:
        pytest.skip("no control group counts here")
    folder = own / f"backprop-test-{os.getpid()}"
    try:
        folder.mkdir()
        limit = next(name for name in ("memory.limit_in_bytes", "memory.max") if (folder / name).exists())
        (folder / limit).write_text(str(LITTLE))
    except (OSError, StopIteration) as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_leader_that_the_kernel_kills_is_counted(stand: Stand, group: Path) -> None:
    stand.within = ("/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
    stand.python(GROWS)
    supervisor = stand.start()
    record = stand.ended()
    supervisor.wait(timeout=30)
    assert record["signal"] == signal.SIGKILL
    in_group, on_machine = record["oom_kills"]
    assert in_group == 1
    assert on_machine >= 1


def test_what_was_counted_at_the_start_outlives_the_supervisor(stand: Stand) -> None:
    stand.python(LISTENER)
    first = stand.start()
    stand.wait_for_log("ready")
    path = stand.segment / "processes.json"
    known = json.loads(path.read_text())
    group, (_, on_machine) = known["oom_kills"]["group"], known["oom_kills"]["counted"]
    path.write_text(json.dumps(known | {"oom_kills": {"group": group, "counted": [None, on_machine - 2]}}))
    second = stand.replace(first)
    second.send_signal(signal.SIGTERM)
    in_group, since = stand.ended()["oom_kills"]
    assert in_group is None, "it was not known at the start"
    assert since >= 2


@pytest.mark.parametrize("text", ["low 0\noom_kill 3\noom_group_kill 0\n", "under_oom 0\noom_kill 3\n"])
def test_both_forms_of_counters_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(oom_kills, "ROOT", tmp_path)
    folder = tmp_path / "user.slice"
    folder.mkdir()
    (folder / ("memory.events" if text.startswith("low") else "memory.oom_control")).write_text(text)
    assert oom_kills.counted(folder)[0] == 3
    assert oom_kills.since({"group": str(folder), "counted": [1, None]}) == (2, None)


@pytest.mark.parametrize(
    "note",
    [
        None,
        7,
        {},
        {"counted": [1]},
        {"counted": "ab"},
        {"group": 7, "counted": [None, "x"]},
        {"counted": [10**9, 10**9]},
    ],
)
def test_a_note_that_says_nothing_usable_counts_for_nothing(note: object) -> None:
    assert oom_kills.since(note) == (None, None)


def test_no_file_outside_of_the_control_groups_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("oom_kill 3\n")
    for place in (tmp_path, Path("/sys/fs/cgroup/../../..") / tmp_path.relative_to("/")):
        assert oom_kills.since({"group": str(place), "counted": [1, None]}) == (None, None)
