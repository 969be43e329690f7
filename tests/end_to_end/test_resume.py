"""What the next segment resumes from: the newest that is still good, where the user said, or a refusal."""

import json
import os
import re
import signal
import sqlite3
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.checkpoints.resume import StartPoint, choose, command_line, takes_resume_from
from backprop.worker.segments.ends.chain import chain_of
from tests.support.harness import QUIET_LIMITS, Bench
from tests.support.store_rows import SPEC, add_run, checkpoint


@pytest.fixture
def run(database: Database) -> RunRecord:
    return add_run(database, "r1")


def saved(folder: Path, *names: str) -> list[CheckpointRecord]:
    """Checkpoints of segments 1, 2, …; newest first, as they are read."""
    records: list[CheckpointRecord] = []
    for number, name in enumerate(names, start=1):
        (folder / name).write_text(f"weights {number}")
        record = checkpoint("r1", folder / name, segment=number, step=number)
        records.insert(0, replace(record, mtime_ns=record.mtime_ns + number))
        os.utime(folder / name, ns=(0, record.mtime_ns + number))
    return records


def test_the_newest_good_one(run: RunRecord, tmp_path: Path) -> None:
    records = saved(tmp_path, "1.pt", "2.pt", "3.pt")
    assert choose(run, records) == StartPoint(str(tmp_path / "3.pt"))
    (tmp_path / "3.pt").unlink()
    found = choose(run, records)
    assert found.checkpoint == str(tmp_path / "2.pt")
    assert found.passed_over == (f"{tmp_path / '3.pt'}: it is gone",)


def test_nothing_saved_is_a_start_from_zero_or_from_what_was_given(run: RunRecord, tmp_path: Path) -> None:
    assert choose(run, []) == StartPoint()
    refused = [replace(checkpoint("r1", "/x"), refused="it is empty")]
    assert choose(run, refused) == StartPoint(), "what was never good is no promise"
    start = tmp_path / "start.pt"
    start.write_text("weights")
    given = replace(run, spec=msgspec.structs.replace(SPEC, resume_from=str(start)))
    assert choose(given, []) == StartPoint(str(start))
    records = saved(tmp_path, "1.pt")
    assert choose(given, records) == StartPoint(str(tmp_path / "1.pt")), "its own work comes first"


def test_a_chain_never_begins_again_in_silence(run: RunRecord, tmp_path: Path) -> None:
    records = saved(tmp_path, "1.pt", "2.pt")
    for name in ("1.pt", "2.pt"):
        (tmp_path / name).unlink()
    found = choose(run, records)
    assert found.checkpoint is None
    assert found.problem is not None
    assert "none of its checkpoints is good any more" in found.problem
    assert "backprop resume r1 --resume-from PATH, or --from-scratch" in found.problem
    gone = replace(run, spec=msgspec.structs.replace(SPEC, resume_from=str(tmp_path / "no.pt")))
    assert "is gone" in str(choose(gone, []).problem)


def test_where_the_user_said_to_begin_holds_until_there_is_newer_work(run: RunRecord, tmp_path: Path) -> None:
    records = saved(tmp_path, "1.pt", "2.pt", "3.pt")
    scratch = replace(run, resume_pin="", chain_start=2, segment=2)
    assert choose(scratch, records[1:]) == StartPoint()
    assert choose(scratch, records[1:]) == StartPoint(), "and again, if its first segment saved nothing"
    assert choose(scratch, records) == StartPoint(str(tmp_path / "3.pt")), "its new work"
    pinned = replace(scratch, resume_pin=str(tmp_path / "1.pt"))
    assert choose(pinned, records[1:]) == StartPoint(str(tmp_path / "1.pt"))
    assert choose(pinned, records) == StartPoint(str(tmp_path / "3.pt"))
    assert "is gone" in str(choose(replace(pinned, resume_pin="/no.pt"), records[1:]).problem)


def test_from_scratch_is_not_resumable_before_its_first_checkpoint(run: RunRecord, tmp_path: Path) -> None:
    """Else a timebox without a checkpoint would be answered with a resume from the work that was thrown away."""
    records = saved(tmp_path, "1.pt")
    scratch = replace(run, resume_pin="", chain_start=1, segment=2)
    chain = chain_of(scratch, segment_of(scratch), SegmentResult(), records)
    assert not chain.resumable
    assert chain_of(replace(run, segment=2), segment_of(scratch), SegmentResult(), records).resumable


def test_saving_again_what_one_resumed_from_is_no_progress(run: RunRecord, tmp_path: Path) -> None:
    (first,) = saved(tmp_path, "last.pt")
    run = replace(run, segment=2)
    segment = segment_of(run, used=first.path)
    again = replace(first, segment=2)
    assert not chain_of(run, segment, SegmentResult(), [again, first]).progressed, "the same step"
    assert chain_of(run, segment, SegmentResult(), [replace(again, step=2), first]).progressed
    assert chain_of(run, segment, SegmentResult(), [replace(again, step=None), first]).progressed, (
        "no step to compare"
    )
    assert not chain_of(run, segment, SegmentResult(), [first]).progressed
    (tmp_path / "last.pt").unlink()
    lost = chain_of(run, segment, SegmentResult(), [replace(again, step=2), first])
    assert not lost.progressed
    assert not lost.resumable


def segment_of(run: RunRecord, used: str | None = None) -> SegmentRecord:
    values: dict[str, object] = dict.fromkeys(SegmentRecord.__struct_fields__)
    values |= {
        "run_id": run.id,
        "number": run.segment,
        "checkpoint_used": used,
        "promised_mib": 0,
        "boxes": 1,
    }
    return SegmentRecord(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ('parser.add_argument("--resume-from")', True),
        ("parser.add_argument('--resume-from', default=None)", True),
        ('@click.option("-r", "--resume-from")', True),
        ("# we do not take --resume-from", False),
        ('parser.add_argument("--resume-from-epoch")', False),
        ("parser.add_argument('--resume_from')", False),
        ('print("usage: train.py [--resume-from PATH]")', False),
        ("", False),
    ],
)
def test_whether_a_script_takes_the_option_is_read_from_its_text(
    tmp_path: Path, text: str, takes: bool
) -> None:
    script = tmp_path / "train.py"
    script.write_text(text)
    assert takes_resume_from(str(script)) is takes
    assert not takes_resume_from(str(tmp_path / "missing.py"))
    assert not takes_resume_from(None)


def test_a_checkpoint_is_one_argument_whatever_it_is_called() -> None:
    odd = "/a b/$(rm -rf)/'quo\"te'.pt"
    spec = msgspec.structs.replace(SPEC, resume_arg="--load {checkpoint} --again={checkpoint}")
    assert command_line(spec, odd) == (*SPEC.argv, "--load", odd, f"--again={odd}")
    assert command_line(spec, None) == SPEC.argv


EACH_SEGMENT = """
    import json, os, sys
    number = os.environ["BACKPROP_SEGMENT"]
    print("from", os.environ.get("BACKPROP_RESUME_FROM"))
    if "save" in sys.argv:
        open(f"{number}.pt", "w").write(number)
        print(json.dumps({"event": "checkpoint_saved", "path": f"{number}.pt", "step": int(number)}))
    sys.exit(1 if "fail" in sys.argv else 0)
"""


def drain(bench: Bench) -> None:
    assert bench.worker("--drain").wait(timeout=60) == 0


def test_resume_of_what_has_ended_goes_on_from_its_last_checkpoint(bench: Bench) -> None:
    bench.script("train.py", EACH_SEGMENT)
    run = bench.queue("train.py", "--", "save")
    drain(bench)
    done = bench.backprop("resume", run, "-m", "7", "--retries", "2")
    assert f"queued train ({run}) again, from {bench.project / '1.pt'}" in done.stdout
    assert "no worker is running" in done.stderr
    drain(bench)
    shown = bench.show(run)
    assert (shown["state"], shown["segment_count"]) == ("completed", 2)
    assert shown["segments"][1]["checkpoint_used"] == str(bench.project / "1.pt")
    assert re.search(r"^timebox +7 min\b", bench.backprop("show", run).stdout, re.MULTILINE)


def test_resume_from_scratch_and_from_a_path(bench: Bench) -> None:
    bench.script("train.py", EACH_SEGMENT)
    run = bench.queue("train.py", "--", "save")
    drain(bench)
    assert "from the beginning" in bench.backprop("resume", run, "--from-scratch").stdout
    drain(bench)
    assert "from None" in bench.log(run, 2)
    bench.backprop("resume", run, "-r", "1.pt")
    drain(bench)
    assert f"from {bench.project / '1.pt'}" in bench.log(run, 3)
    refused = bench.backprop("resume", run, "-r", "no.pt")
    assert (refused.returncode, refused.stderr.count("\n")) == (6, 1)
    both = bench.backprop("resume", run, "-r", "1.pt", "--from-scratch")
    assert (both.returncode, both.stderr.count("\n")) == (2, 1)


def test_a_run_whose_checkpoints_are_gone_is_held_and_says_what_to_do(bench: Bench) -> None:
    bench.script("train.py", EACH_SEGMENT)
    run = bench.queue("train.py", "--", "save", "fail")
    drain(bench)
    (bench.project / "1.pt").unlink()
    bench.backprop("resume", run)
    drain(bench)
    shown = bench.show(run)
    assert shown["state"] == "held"
    assert "1.pt: it is gone" in shown["reason"]
    assert "--from-scratch" in shown["reason"]
    assert bench.backprop("resume", run, "--from-scratch").returncode == 0
    drain(bench)
    assert bench.show(run)["segment_count"] == 2


def test_resume_and_follow(bench: Bench) -> None:
    bench.script("train.py", EACH_SEGMENT)
    run = bench.queue("train.py", *QUIET_LIMITS, "--", "save", "fail")
    drain(bench)
    done = bench.backprop("resume", run, "--follow")
    assert done.returncode == 20
    assert f"from {bench.project / '1.pt'}" in done.stdout
    assert "==> segment 2 <==" in done.stdout
    assert "==> segment 1 <==" not in done.stdout, "what was before is in the logs"


@pytest.mark.parametrize("point", ["resume noted", "resume in folder"])
def test_a_resume_that_dies_half_way_is_made_whole_or_without_its_options(bench: Bench, point: str) -> None:
    """Killed before and after the change of the folder: what the run is started with is what both say."""
    bench.script("ok.py", "print('ran')")
    run = bench.queue("ok.py", "--hold", "--grace-seconds", "3")
    killed = bench.backprop(
        "resume", run, "--grace-seconds", "4", env={"BACKPROP_FAILPOINT": f"{point}:kill"}
    )
    assert killed.returncode == -signal.SIGKILL, killed
    drain(bench)
    assert bench.state(run) == "completed", "it was asked for"
    expected = 4 if point == "resume in folder" else 3
    assert graces(bench, run) == (expected, expected)


@pytest.mark.parametrize("point", ["resume noted", "resume in folder"])
def test_a_resume_that_fails_half_way_changes_neither_database_nor_folder(bench: Bench, point: str) -> None:
    bench.script("ok.py", "print('ran')")
    first, second = (bench.queue("ok.py", "--hold", "--grace-seconds", "3") for _ in range(2))
    words = ("resume", first, second, "--grace-seconds", "4")
    failed = bench.backprop(*words, env={"BACKPROP_FAILPOINT": f"{point}:raise"})
    assert (failed.returncode, failed.stderr.count("\n")) == (6, 1), failed
    spec = bench.home / "runs" / second / "spec.json"
    kept = spec.read_bytes()
    spec.write_text("{")
    failed = bench.backprop(*words)
    assert (failed.returncode, failed.stderr.count("\n")) == (6, 1), failed
    assert f"{spec} cannot be changed: damaged" in failed.stderr
    spec.write_bytes(kept)
    for run in (first, second):
        assert (bench.state(run), graces(bench, run)) == ("held", (3, 3))
    assert bench.backprop(*words).returncode == 0
    assert [graces(bench, run) for run in (first, second)] == [(4, 4), (4, 4)]


def graces(bench: Bench, run: str) -> tuple[float, float]:
    """What the database and the run's folder say."""
    rows = sqlite3.connect(bench.home / "backprop.db")
    (text,) = rows.execute("SELECT spec FROM runs WHERE id = ?", (run,)).fetchone()
    rows.close()
    folder = json.loads((bench.home / "runs" / run / "spec.json").read_text())
    return json.loads(text)["grace_s"], folder["spec"]["grace_s"]
