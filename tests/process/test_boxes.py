"""The end of a box as the supervisor keeps it: one decision, made once, whoever dies before, in or after it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backprop.worker.executor import box_files
from backprop.worker.supervisor import process_tree
from backprop.worker.supervisor.once import make_once
from tests.support.bare_supervisor import LISTENER, Stand, state
from tests.support.harness import ROOT, wait_until

BOX_S = 1.0
READS_ENVIRONMENT = """
    import os
    for name in ("BACKPROP_DEADLINE", "BACKPROP_DEADLINE_FILE"):
        print(name, os.environ.get(name), flush=True)
"""


def start(
    stand: Stand, failpoint: str = "", body: str = LISTENER, **changes: object
) -> "subprocess.Popen[bytes]":
    stand.for_supervisors = {"BACKPROP_FAILPOINT": failpoint}
    stand.python(body, **{"timebox_s": BOX_S, "at_timebox": "auto"} | changes)
    supervisor = stand.start()
    stand.for_supervisors = {}
    if body == LISTENER:
        stand.wait_for_log("ready")
    return supervisor


def tell(stand: Stand, *, unsaved: bool, proven: bool = False, ago_s: float = 0.0, box: int = 1) -> None:
    """Write the standing order, as a worker that looked `ago_s` ago."""
    order = {
        "format": 1, "box": box, "unsaved": unsaved, "proven": proven, "why": "its time is up",
        "boot_id": process_tree.boot_id(), "looked_monotonic_s": time.monotonic() - ago_s,
    }  # fmt: skip
    draft = stand.segment / "box.json.draft"
    draft.write_text(json.dumps(order))
    draft.replace(stand.segment / "box.json")


def renew(stand: Stand, box: int, until_s: float) -> None:
    assert make_once(stand.segment / f"box-{box}.json", {"format": 1, "choice": "renew", "until_s": until_s})


def decision(stand: Stand, box: int = 1) -> dict[str, Any]:
    return json.loads((stand.segment / f"box-{box}.json").read_text())


def pass_end(stand: Stand, box_s: float = BOX_S, by_s: float = 1.5) -> None:
    """Wait until the end of a box is over for longer than a supervisor waits between two looks."""
    end_s = stand.known()["started_monotonic_s"] + box_s + by_s
    wait_until(lambda: time.monotonic() > end_s)


def asked(stand: Stand) -> bool:
    return (stand.segment / "stop.json").exists()


def test_nobody_says_that_an_end_loses_nothing_so_it_goes_on(stand: Stand) -> None:
    start(stand)
    pass_end(stand)
    assert not asked(stand)
    tell(stand, unsaved=True)
    pass_end(stand, by_s=3.0)
    assert not asked(stand)
    tell(stand, unsaved=False)
    record = stand.ended()
    assert (record["asked"], record["exit_code"], record["boxes"]) == ("timebox", 0, 1)
    assert (decision(stand)["choice"], decision(stand)["why"]) == ("ask", "its time is up")
    assert stand.log() == "ready\nheard 1\n"


def test_an_order_that_no_worker_confirms_ends_only_what_is_proven(stand: Stand) -> None:
    start(stand)
    tell(stand, unsaved=False, box=2)
    pass_end(stand)
    assert not asked(stand), "it is about another box"
    tell(stand, unsaved=False, ago_s=100.0)
    pass_end(stand)
    assert not asked(stand)
    tell(stand, unsaved=False, proven=True, ago_s=100.0)
    assert stand.ended()["asked"] == "timebox"


def test_a_renewed_box_moves_the_end_and_the_deadline(stand: Stand) -> None:
    start(stand)
    tell(stand, unsaved=False, box=2)
    renew(stand, 1, 3.0)
    pass_end(stand, by_s=0.5)
    assert not asked(stand)
    known, (wall, steady, boot) = stand.known(), (stand.segment / "deadline").read_text().split()
    assert float(steady) == pytest.approx(known["started_monotonic_s"] + 3.0, abs=0.1)
    assert float(wall) == pytest.approx(known["started_at_s"] + 3.0, abs=0.1)
    assert boot == known["boot_id"]
    record = stand.ended()
    assert (record["asked"], record["boxes"]) == ("timebox", 2)
    assert 3.0 <= record["running_s"] < 10


def test_a_successor_goes_on_in_the_box_that_is_in_force(stand: Stand) -> None:
    first = start(stand)
    tell(stand, unsaved=False, box=3)
    renew(stand, 1, 2.5)
    renew(stand, 2, 4.0)
    pass_end(stand, by_s=0.2)
    second = stand.replace(first)
    second.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(stand.leader()) == "T")
    pass_end(stand, box_s=4.0, by_s=0.5)
    assert not asked(stand), "a box does not end in a pause"
    second.send_signal(signal.SIGUSR2)
    record = stand.ended()
    assert (record["asked"], record["boxes"]) == ("timebox", 3)
    assert record["running_s"] >= 4.0
    assert record["paused_s"] > 0.5


@pytest.mark.parametrize("failpoint", ["deciding", "decided", "asking"])
def test_a_supervisor_killed_at_the_end_of_a_box_leaves_one_question(stand: Stand, failpoint: str) -> None:
    first = start(stand, f"{failpoint}:kill")
    tell(stand, unsaved=False)
    first.wait(timeout=30)
    assert (stand.segment / "box-1.json").exists() is (failpoint != "deciding")
    if failpoint == "decided":
        tell(stand, unsaved=True)  # it comes too late: what was decided is obeyed
    stand.adopt()
    record = stand.ended()
    assert record["asked"] == "timebox"
    assert stand.log() == "ready\nheard 1\n"


def test_a_worker_that_decides_in_the_last_moment_is_obeyed(stand: Stand) -> None:
    """The supervisor is about to write its own decision."""
    first = start(stand, "deciding:stop")
    tell(stand, unsaved=False)
    wait_until(lambda: state(first.pid) == "T")
    renew(stand, 1, 3.0)
    first.send_signal(signal.SIGCONT)
    pass_end(stand, by_s=0.7)
    assert not asked(stand)
    tell(stand, unsaved=False, box=2)
    wait_until(lambda: state(first.pid) == "T")  # at the end of the second box, where nobody is before it
    first.send_signal(signal.SIGCONT)
    record = stand.ended()
    assert record["boxes"] == 2
    assert record["running_s"] >= 3.0


def test_what_cannot_be_written_is_not_decided(stand: Stand) -> None:
    (stand.segment / "box-1.json").mkdir()
    start(stand)
    tell(stand, unsaved=False)
    pass_end(stand)
    assert not asked(stand)
    (stand.segment / "box-1.json").rmdir()
    assert stand.ended()["asked"] == "timebox"


def test_a_full_disk_does_not_let_an_old_deadline_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box_files.write_deadline(tmp_path, 5.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(box_files, "write_synced", full)
    box_files.write_deadline(tmp_path, 300.0)
    wall_s, steady_s, boot = (tmp_path / "deadline").read_text().split()
    assert 290 < float(wall_s) - time.time() <= 300.001
    assert 290 < float(steady_s) - time.monotonic() <= 300.001
    assert boot == process_tree.boot_id()
    with pytest.raises(OSError, match="No space"):
        box_files.write_standing_order(tmp_path, box_files.StandingOrder(box=1, ends_s=1.0))


def test_of_many_that_decide_one_does(tmp_path: Path) -> None:
    body = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "worker" / "supervisor")!r})
import once, pathlib
sys.stdin.readline()
folder = pathlib.Path({str(tmp_path)!r})
print(sum(once.make_once(folder / f"box-{{n}}.json", {{"by": sys.argv[1]}}) for n in range(50)))
"""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", body, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    for each in crowd:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    made = [int(each.communicate(timeout=30)[0]) for each in crowd]
    assert sum(made) == 50
    kept = [json.loads(path.read_text())["by"] for path in tmp_path.iterdir()]
    assert sorted(tmp_path.glob("*.tmp")) == []
    assert [kept.count(str(n)) for n in range(4)] == made


@pytest.mark.parametrize("link_error", [1, 95])
def test_a_file_system_without_links_will_do(
    tmp_path: Path, link_error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(link_error, os.strerror(link_error))

    monkeypatch.setattr(os, "link", refuse)
    assert make_once(tmp_path / "a", {"n": 1})
    assert not make_once(tmp_path / "a", {"n": 2})
    assert json.loads((tmp_path / "a").read_text()) == {"n": 1}


@pytest.mark.parametrize("rule", ["end", None])
def test_where_every_box_ends_the_segment_nothing_is_decided(stand: Stand, rule: str | None) -> None:
    """None: an order of 0.1.0, which knew no other way."""
    stand.python(LISTENER, timebox_s=BOX_S, **({} if rule is None else {"at_timebox": rule}))
    stand.start()
    record = stand.ended()
    assert (record["asked"], record["boxes"]) == ("timebox", 1)
    assert stand.known()["box_format"] is None
    assert list(stand.segment.glob("box*")) == []


@pytest.mark.parametrize(
    ("rule", "number", "file"), [("end", True, False), ("auto", False, True), ("none", False, False)]
)
def test_a_script_is_told_an_end_that_holds(stand: Stand, rule: str, number: bool, file: bool) -> None:
    stand.python(READS_ENVIRONMENT, at_timebox=rule)
    stand.start()
    stand.ended()
    said = dict(line.split(" ", 1) for line in stand.log().splitlines())
    assert (said["BACKPROP_DEADLINE"] != "None") is number
    assert (said["BACKPROP_DEADLINE_FILE"] != "None") is file
    assert (stand.segment / "deadline").exists() is file
