"""What is heard of a segment: its log and its events file, each span of bytes once, whoever reads."""

import json
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics, queries
from backprop.scheduler.store.writes import progress
from backprop.worker.checkpoints.seen import baseline
from backprop.worker.executor import segment_files
from backprop.worker.segments import events, live, log_reader
from backprop.worker.segments.log_reader import CHECKPOINTS_PER_READ, LogReader
from backprop.worker.supervisor import process_tree
from tests.support.store_rows import SPEC, add_run, claimed, get


class Segment:
    """A claimed run whose script is us: it writes into the log, listeners come and go."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.cwd, self.folder = folder / "cwd", folder / "1"
        self.cwd.mkdir()
        self.folder.mkdir()
        spec = msgspec.structs.replace(SPEC, cwd=str(self.cwd))
        claimed(database, add_run(database, "r1", spec=spec), now_s=time.time())
        self.listener = self.another()

    def another(self) -> LogReader:
        """A listener that starts where the stored offsets stand, as a next worker's does."""
        segment = queries.segment(self.database, "r1", 1)
        assert segment is not None
        return LogReader(get(self.database, "r1"), segment, self.folder)

    def prints(self, *lines: object, to: str = "log", end: str = "\n") -> None:
        with (self.folder / to).open("a") as file:
            for line in lines:
                file.write((line if isinstance(line, str) else json.dumps(line)) + end)

    def saves(self, name: str, step: int | None = None) -> None:
        (self.cwd / name).write_text("weights")
        self.prints({"event": "checkpoint_saved", "path": name, "step": step})

    def hear(self, final: bool = False) -> bool:
        """Hear and store; whether there was anything to store."""
        heard = self.listener.read(final)
        if heard is None:
            return False
        assert progress.record(self.database, "r1", 1, heard)
        self.listener.mark_stored(heard)
        return True

    def steps(self) -> tuple[int | None, float | None]:
        run = get(self.database, "r1")
        return run.last_step, run.last_loss

    def checkpoints(self) -> list[str]:
        """Good ones, oldest first."""
        saved = queries.checkpoints(self.database, "r1")
        return [Path(one.path).name for one in reversed(saved) if one.refused is None]


@pytest.fixture
def segment(database: Database, tmp_path: Path) -> Segment:
    made = Segment(database, tmp_path)
    yield made  # type: ignore[misc]
    made.listener.close()


def test_progress_and_checkpoints_are_heard_from_both_files(segment: Segment) -> None:
    assert not segment.hear(), "nothing is there yet"
    segment.prints({"step": 1, "loss": 0.9}, "ordinary output", {"step": 2})
    (segment.cwd / "a.pt").write_text("weights")
    segment.prints({"event": "checkpoint_saved", "path": "a.pt", "step": 2}, to="events.jsonl")
    assert segment.hear()
    assert segment.steps() == (2, 0.9)
    assert segment.checkpoints() == ["a.pt"]
    assert not segment.hear(), "each once"


def test_the_next_worker_reads_on_where_the_last_one_stood(segment: Segment) -> None:
    segment.saves("1.pt", 1)
    assert segment.hear()
    segment.listener.close()
    segment.saves("2.pt", 2)
    segment.listener = segment.another()
    assert segment.hear()
    assert segment.checkpoints() == ["1.pt", "2.pt"]


def test_two_workers_that_read_the_same_bytes_store_them_once(segment: Segment) -> None:
    other = segment.another()
    segment.saves("1.pt", 1)
    first, second = segment.listener.read(), other.read()
    assert first is not None
    assert second is not None
    assert progress.record(segment.database, "r1", 1, first)
    assert not progress.record(segment.database, "r1", 1, second)
    assert segment.checkpoints() == ["1.pt"]
    other.close()


def test_a_line_counts_once_it_is_whole(segment: Segment) -> None:
    segment.prints('{"step": 7, ', end="")
    segment.hear()
    assert segment.steps() == (None, None)
    segment.prints('"loss": 0.25}')
    assert segment.hear()
    assert segment.steps() == (7, 0.25)


def test_at_the_end_a_last_line_counts_without_its_newline(segment: Segment) -> None:
    (segment.cwd / "1.pt").write_text("weights")
    segment.prints('{"event": "checkpoint_saved", "path": "1.pt"}', end="")
    segment.hear()
    assert segment.checkpoints() == []
    assert segment.hear(final=True)
    assert segment.checkpoints() == ["1.pt"]


def test_at_the_end_everything_is_read_however_much_it_is(segment: Segment) -> None:
    segment.prints(*["x" * 1000] * 5000)
    segment.saves("last.pt", 9)
    assert segment.hear(final=True)
    assert segment.checkpoints() == ["last.pt"]
    row = queries.segment(segment.database, "r1", 1)
    assert row is not None
    assert row.log_offset == (segment.folder / "log").stat().st_size


def test_bad_events_are_counted_and_harm_nothing(segment: Segment) -> None:
    segment.prints({"step": "many"}, {"event": "checkpoint_saved"}, '{"step": 3', {"step": 3})
    assert segment.hear()
    row = queries.segment(segment.database, "r1", 1)
    assert row is not None
    assert row.bad_events == 3
    assert segment.steps() == (3, None)


def test_a_claim_that_does_not_hold_is_kept_with_the_reason(segment: Segment) -> None:
    (segment.cwd / "empty.pt").touch()
    outside = segment.cwd.parent / "outside.pt"
    outside.write_text("weights")
    (segment.cwd / "old.pt").write_text("weights")
    os.utime(segment.cwd / "old.pt", (1.0, 1.0))
    for name in ("empty.pt", str(outside), "../outside.pt", "old.pt", "missing.pt"):
        segment.prints({"event": "checkpoint_saved", "path": name})
    assert segment.hear()
    saved = {one.path: one.refused or "" for one in queries.checkpoints(segment.database, "r1")}
    assert segment.checkpoints() == []
    assert "it is empty" in saved["empty.pt"]
    assert "outside the run's folders" in saved["../outside.pt"]
    assert "holds no new work" in saved["old.pt"]
    assert "No such file" in saved["missing.pt"]
    assert len(saved) == 5


def test_of_a_flood_the_last_ones_count(segment: Segment) -> None:
    for number in range(50):
        segment.saves(f"{number}.pt", number)
    segment.saves("3.pt", 50)
    assert segment.hear()
    expected = [f"{number}.pt" for number in range(51 - CHECKPOINTS_PER_READ, 50)] + ["3.pt"]
    assert segment.checkpoints() == expected, "one said twice counts where it was said last"


def test_ordinary_output_alone_is_seldom_worth_a_transaction(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment.prints("starting")
    assert segment.hear(), "the first sign of life is"
    row = queries.segment(segment.database, "r1", 1)
    assert row is not None
    assert row.first_output_s is not None
    segment.prints("chatter")
    assert not segment.hear()
    monkeypatch.setattr(log_reader, "QUIET_STORE_S", 0.0)
    assert segment.hear()
    again = queries.segment(segment.database, "r1", 1)
    assert again is not None
    assert again.first_output_s == row.first_output_s, "only the first"


def test_a_log_that_was_emptied_is_read_from_its_beginning(segment: Segment) -> None:
    segment.saves("1.pt", 1)
    assert segment.hear()
    (segment.folder / "log").write_text("")
    segment.prints({"step": 5})
    assert segment.hear()
    assert segment.steps()[0] == 5


def test_a_long_log_is_passed_over_in_blocks_and_nothing_in_it_is_missed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 MB of ordinary output few lines are looked at one by one: those of a block that may hold an event."""
    segment = Segment(database, tmp_path)
    ordinary = b"epoch 12 step 34567 lr 0.0003 loss 0.123 it/s 45.6 [#####-----] some more text\n" * 10_000
    (segment.cwd / "a.pt").write_text("weights")
    with (segment.folder / "log").open("wb") as log:
        for part in range(128):
            log.write(ordinary)
            if part == 60:
                log.write(b'{"event": "checkpoint_saved", "path": "a.pt", "step": 60}\n')
            if part == 70:
                log.write(b"step 71, loss: nan\n")
    looked: list[int] = []
    parse = events.parse

    def counted(line: bytes) -> object:
        looked.append(1)
        return parse(line)

    monkeypatch.setattr(events, "parse", counted)
    assert segment.hear(final=True)
    (segment.folder / "log").unlink()
    assert segment.steps()[0] == 60
    assert [Path(path).name for path in segment.checkpoints()] == ["a.pt"]
    assert get(database, "r1").fault == Fault.NAN
    assert len(looked) < 10_000, "of 1,280,000"


def test_a_script_that_prints_megabytes_between_two_looks_is_heard_in_time(
    database: Database, tmp_path: Path
) -> None:
    segment = Segment(database, tmp_path)
    segment.prints(*["y" * 60] * 100_000)
    segment.prints({"step": 7})
    report = segment.listener.read(max_bytes=live.LIVE_BYTES)
    assert report is not None
    assert report.last_step == 7


def test_plain_output_gives_steps_losses_and_metrics(segment: Segment) -> None:
    segment.prints("epoch 3/10 loss 0.5 acc: 0.9")
    assert segment.hear()
    run = get(segment.database, "r1")
    assert (run.last_step, run.step_unit, run.step_total, run.step_source) == (3, "epoch", 10, "log")
    assert (run.last_loss, run.loss_source) == (0.5, "log")
    kept = {one.name: (one.step, one.value, one.source) for one in metrics.of_runs(segment.database, ["r1"])}
    assert kept == {"loss": (3, 0.5, "log"), "acc": (3, 0.9, "log"), "epoch": (3, 3.0, "log")}
    row = queries.segment(segment.database, "r1", 1)
    assert row is not None
    assert (row.first_step, row.step_unit, row.step_total, row.step_fell) == (3, "epoch", 10, False)


def test_a_bar_that_never_ends_its_line_is_heard(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "PLAIN_STORE_S", 0.0)
    for done in range(1, 5):
        segment.prints(f"{done}%|#   | {done}/100 [00:01<00:09, 9.1it/s, loss=0.{done}]", end="\r")
        assert segment.hear()
        assert segment.steps() == (done, done / 10)


def test_what_is_announced_beats_what_is_printed(segment: Segment) -> None:
    segment.prints("step 900 loss 7.0")
    assert segment.hear()
    segment.prints({"step": 5, "loss": 0.5}, "step 901 loss 8.0")
    assert segment.hear()
    assert segment.steps() == (5, 0.5)
    row = queries.segment(segment.database, "r1", 1)
    assert row is not None
    assert (row.first_step, row.step_unit) == (5, None), "that of the counter that counts"
    segment.listener.close()
    segment.listener = segment.another()
    segment.prints("step 902 loss 9.0")
    segment.hear()
    assert segment.steps() == (5, 0.5), "for the next worker, too"
    run = get(segment.database, "r1")
    assert (run.step_source, run.step_unit, run.loss_source) == ("event", None, "event")


def test_saves_are_announced_and_losses_printed(segment: Segment) -> None:
    segment.prints("step 7 loss 0.5")
    segment.saves("a.pt", 5)
    assert segment.hear()
    assert segment.steps() == (5, 0.5)


def test_what_the_script_has_removed_again_is_not_refused(segment: Segment) -> None:
    for name in ("epoch=1.ckpt", "epoch=2.ckpt", "epoch=3.ckpt"):
        segment.saves(name)
    for name in ("epoch=1.ckpt", "epoch=2.ckpt"):
        (segment.cwd / name).unlink()
    assert segment.hear()
    assert [one.path for one in queries.checkpoints(segment.database, "r1")] == [
        str(segment.cwd / "epoch=3.ckpt")
    ]


def test_the_newest_that_is_not_there_is_refused(segment: Segment) -> None:
    segment.saves("a.pt")
    segment.saves("b.pt")
    (segment.cwd / "b.pt").unlink()
    assert segment.hear()
    assert segment.checkpoints() == ["a.pt"]
    refused = [one.refused for one in queries.checkpoints(segment.database, "r1") if one.refused]
    assert refused == ["b.pt: No such file or directory"]


def test_the_next_worker_knows_what_counts_and_which_step_was_the_first(segment: Segment) -> None:
    segment.prints("epoch train_loss valid_loss", "1 0.5 0.6", "2 0.4 0.5")
    assert segment.hear()
    segment.listener.close()
    segment.listener = segment.another()
    segment.prints("3 0.3 0.4")
    assert not segment.hear(), "seldom worth a transaction"
    segment.prints("the end")
    assert segment.hear(final=True)
    assert segment.steps() == (3, 0.3)
    assert (segment.listener.steps.first, segment.listener.steps.fell) == (1, False)


def test_a_flood_is_sampled_and_its_first_step_is_known(segment: Segment) -> None:
    segment.prints(*[f"step {step} loss 0.5" for step in range(100_000)])
    assert segment.hear(final=True)
    assert segment.steps()[0] == 99_999
    assert (segment.listener.steps.first, segment.listener.steps.fell) == (0, False)


def saved_under_a_clock_set_back(segment: Segment) -> None:
    """The segment's row is of now; what it saved was saved when the clock was an hour behind."""
    segment.saves("a.pt", 1)
    an_hour_ago_s = time.time() - 3600
    os.utime(segment.cwd / "a.pt", (an_hour_ago_s, an_hour_ago_s))


def test_a_checkpoint_of_a_clock_that_was_set_back_and_forward_again_is_good(segment: Segment) -> None:
    """The record of its end was written by the clock of its saves, which nobody heard at the time."""
    saved_under_a_clock_set_back(segment)
    assert segment.another().read(final=True).checkpoints[0].refused is not None  # type: ignore[union-attr]
    end = {"ended_at_s": time.time() - 3590, "running_s": 15.0, "paused_s": 5.0, "exit_code": 75}
    (segment.folder / "exit.json").write_text(json.dumps(end))
    assert segment.hear(final=True)
    assert segment.checkpoints() == ["a.pt"]


@pytest.mark.parametrize("boot_id", [process_tree.boot_id(), "other"], ids=["this boot", "another"])
def test_a_checkpoint_is_compared_with_the_start_on_the_present_clock(segment: Segment, boot_id: str) -> None:
    """The clock was an hour ahead when the segment began, and was corrected; another hour has passed."""
    saved_under_a_clock_set_back(segment)
    known = {"boot_id": boot_id, "supervisor": [1, 1], "leader": [2, 2], "started_at_s": time.time()}
    known["started_monotonic_s"] = time.monotonic() - 3700
    (segment.folder / "processes.json").write_text(json.dumps(known))
    assert segment.hear(final=True)
    assert segment.checkpoints() == (["a.pt"] if boot_id == process_tree.boot_id() else [])


@pytest.mark.parametrize("off_s", [-86400, -30, 30])
def test_what_was_not_there_before_is_new_whatever_its_time(segment: Segment, off_s: int) -> None:
    """The clock was off while it was saved, and right again before anybody looked."""
    (segment.cwd / "old.pt").write_text("weights")
    segment_files.write_before(segment.folder, baseline.note([str(segment.cwd)], segment.folder))
    (segment.cwd / "out").mkdir()
    for name in ("a.pt", "out/b.pt", "old.pt"):
        (segment.cwd / name).write_text(f"weights of {name}")
        os.utime(segment.cwd / name, (time.time() + off_s,) * 2)
        segment.prints({"event": "checkpoint_saved", "path": name})
    assert segment.hear(final=True)
    assert segment.checkpoints() == ["a.pt", "b.pt", "old.pt"]


def test_what_was_there_before_is_no_progress_though_the_clock_was_set_back(segment: Segment) -> None:
    """Set back by an hour, so that a file of before seems to be of now; and the same file under a new name."""
    (segment.cwd / "old.pt").write_text("weights")
    os.utime(segment.cwd / "old.pt", (time.time() + 3600,) * 2)
    segment_files.write_before(segment.folder, baseline.note([str(segment.cwd)], segment.folder))
    shutil.copy2(segment.cwd / "old.pt", segment.cwd / "again.pt")
    for name in ("old.pt", "again.pt"):
        segment.prints({"event": "checkpoint_saved", "path": name})
    assert segment.hear(final=True)
    assert segment.checkpoints() == []


def test_an_unreadable_note_of_the_start_loses_no_checkpoint(segment: Segment) -> None:
    (segment.folder / "processes.json").mkdir()
    (segment.folder / "before.json").mkdir()
    segment.saves("a.pt", 1)
    assert segment.hear()
    assert segment.checkpoints() == ["a.pt"]


def test_what_saves_took_adds_up_also_of_those_that_are_not_kept(segment: Segment) -> None:
    for step in range(3):
        segment.saves("one.pt", step)
        segment.prints({"event": "checkpoint_saved", "path": "one.pt", "step": step, "seconds": 2.5})
    assert segment.hear()
    segment.prints({"event": "checkpoint_saved", "path": "one.pt", "step": 9, "seconds": 1})
    assert segment.hear()
    row = queries.segment(segment.database, "r1", 1)
    assert row is not None
    assert row.saving_s == 8.5
