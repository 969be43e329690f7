"""What ended a run, as `show` and `wait` tell it."""

import json
from pathlib import Path
from typing import Any

import pytest

from backprop.cli.render import answers
from backprop.cli.render.triage_view import with_brief_triage
from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.faults.remedies import REMEDIES
from backprop.scheduler.faults.triage import Place, Triage
from backprop.worker.maintenance.triage_reader import RunTriage
from tests.support import json_schema
from tests.support.harness import Bench

LOADS = """
    import sys

    def load(path):
        print("reading", path, flush=True)
        return open(path).read()

    load(sys.argv[1] if len(sys.argv) > 1 else "data/train.csv")
"""


def test_a_failed_run_tells_its_place_its_remedy_and_whether_it_would_fail_again(bench: Bench) -> None:
    bench.script("loads.py", LOADS)
    bench.script("imports.py", "import nowhere_to_be_found\n")
    bench.script("well.py", "print(1)\n")
    once, lacking, well = bench.queue("loads.py"), bench.queue("imports.py"), bench.queue("well.py")
    bench.worker("--drain")
    for run, state in ((once, "failed"), (lacking, "failed"), (well, "completed")):
        bench.wait_for(run, state)

    def shown(run: str, *words: str) -> dict[str, object]:
        done = bench.backprop("show", run, *words)
        value = json.loads(done.stdout)
        json_schema.check(value, "show_brief" if words == ("--brief",) else "show")
        return value

    first = shown(once, "--json")["triage"]
    assert isinstance(first, dict)
    message = "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'"
    assert first == {
        "kind": "missing file", "segment": 1, "at": {"file": "loads.py", "line": 6, "function": "load"},
        "message": message, "remedy": first["remedy"], "would_fail_again": None,
    }  # fmt: skip
    assert shown(once, "--json")["fault"] is None, "what decides over retries is another matter"
    certain = shown(lacking, "--json")["triage"]
    assert isinstance(certain, dict)
    assert (certain["kind"], certain["would_fail_again"]) == ("import error", True)
    assert shown(well, "--json")["triage"] is None
    assert shown(well, "--brief")["triage"] is None

    bench.backprop("resume", once)
    bench.worker("--drain")
    bench.wait_for(once, "failed")
    twice = shown(once, "--brief")["triage"]
    assert twice == first | {"segment": 2, "would_fail_again": True}
    assert len(bench.backprop("show", once, "--brief").stdout) <= 1024
    waited = json.loads(bench.backprop("wait", once, "--json").stdout)
    json_schema.check(waited, "wait")
    assert waited["decided_by"]["triage"] == twice
    text = bench.backprop("show", once).stdout
    assert f"missing file at loads.py:6 in load: {message}" in text
    assert "segments 1 and 2 failed alike, at one place" in text
    assert "make the file or correct its path" in text
    told = bench.backprop("why", once).stdout
    assert f"failed by: missing file at loads.py:6 in load: {message}" in told
    assert "fails again: segments 1 and 2 failed alike, at one place" in told


def test_a_log_that_is_gone_packed_or_no_file_is_no_trouble(bench: Bench) -> None:
    bench.script("loads.py", LOADS)
    run = bench.queue("loads.py")
    bench.worker("--drain")
    bench.wait_for(run, "failed")
    log: Path = bench.folder(run) / "log"

    def kind() -> tuple[str, bool]:
        told = json.loads(bench.backprop("show", run, "--json").stdout)["triage"]
        return told["kind"], told["at"] is not None

    assert kind() == ("missing file", True)
    log.write_bytes(b"x" * 5000 + b"\n" + log.read_bytes())
    bench.backprop("prune", "--compress-logs", "--older-than", "0s")
    assert not log.exists()
    assert kind() == ("missing file", True)
    log.with_name("log.gz").write_bytes(b"no archive")
    assert kind() == ("missing file", False), "by the line that its reason has"
    log.symlink_to("/etc/passwd")
    assert kind() == ("missing file", False)


@pytest.mark.parametrize("char", ["x", "é", "\U0001f600", '"'])
def test_a_brief_answer_has_room_for_its_triage(char: str) -> None:
    long = char * 4000
    view: dict[str, Any] = dict.fromkeys(("exit_code", "last_step", "step_total"), 10**15) | dict.fromkeys(
        ("started_at", "ended_at"), "2026-11-21T20:37:37.274+00:00"
    )
    view |= {"id": "x" * 64, "state": "suspended", "fault": "out of GPU memory", "segment_count": 10**5}
    view |= dict.fromkeys(("name", "reason", "key", "group"), long) | {"last_loss": 1.2345678901234567e-300}
    told = answers.brief_run(view | {"last_checkpoint": "/" + "x" * 150}, {})
    for kind in Fault:
        found = Triage(kind, long, Place(long, 10**8, long), REMEDIES[kind])
        brief = with_brief_triage(told, "x" * 64, RunTriage(found, 10**5, True, "so"))
        whole = answers.with_metrics(brief, {"val_loss": 0.5})
        assert len(json.dumps(whole)) < answers.BRIEF_BYTES
        json_schema.check(whole, "show_brief")
        short = with_brief_triage(told | {"id": "a1b2c3d4", "key": None}, "a1b2c3d4", RunTriage(found, 1))
        assert short["triage"]["remedy"] == REMEDIES[kind].replace("RUN", "a1b2c3d4"), (
            "whole for an ordinary id"
        )
