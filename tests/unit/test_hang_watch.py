"""Whether a segment hangs: any rhythm, any work, any gap in watching, and what the processes really do."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backprop.worker.segments.hang import processes
from backprop.worker.segments.hang.processes import look_at
from backprop.worker.segments.hang.watch import (
    FLOOR_S,
    LEAST_INTERVALS,
    LONGEST_TIMES,
    Hang,
    HangWatch,
    Moment,
    Rhythm,
    Work,
)
from tests.support.harness import wait_until

TICK_S = 2.0
IDLE = Work(frozenset({7}), cpu_s=1.0, moved=0, faults=0, is_at_work=False, gpu_idle=True)
QUICK = Rhythm([1.0] * LEAST_INTERVALS)


def watched(
    watch: HangWatch, signs: Iterable[object], work: list[Work | None], *, stepped: bool = True
) -> list[Hang]:
    """Tick once for each sign, with the next look at its work each time; the last one stays."""
    found: list[Hang] = []
    for number, sign in enumerate(signs):
        silence = watch.look(
            Moment(number * TICK_S, sign, sign is not None, stepped),
            lambda _since: work.pop(0) if len(work) > 1 else work[0],
        )
        found += [silence] if silence is not None else []
    return found


def silent(seconds: float) -> list[object]:
    return ["same"] * (int(seconds / TICK_S) + 1)


def test_a_silence_far_beyond_what_is_usual_without_any_work_is_a_hang() -> None:
    found = watched(HangWatch(QUICK), silent(FLOOR_S + 120), [IDLE])
    assert found
    assert FLOOR_S <= found[0].lasted_s < FLOOR_S + 120
    assert found[0].usual_s == 1.0
    assert not watched(HangWatch(QUICK), silent(FLOOR_S), [IDLE]), "the floor counts from the first look"


@given(st.lists(st.floats(0.5, 4000), min_size=LEAST_INTERVALS, max_size=40), st.data())
def test_no_silence_that_it_has_come_back_from_is_ever_a_hang(
    intervals: list[float], data: st.DataObject
) -> None:
    rhythm = Rhythm(intervals)
    assert rhythm.limit_s is not None
    assert rhythm.limit_s >= max(FLOOR_S, LONGEST_TIMES * max(intervals))
    lasts_s = data.draw(st.floats(0, max(intervals)))
    assert not watched(HangWatch(rhythm), silent(min(lasts_s, 8000)), [IDLE])


@pytest.mark.parametrize(
    "does",
    [
        pytest.param({"cpu_s": 0.2}, id="a validation, a compilation: processor time"),
        pytest.param({"moved": 8192}, id="data preparation, a slow copy: bytes"),
        pytest.param({"faults": 1}, id="swap: pages from a disk"),
    ],
)
@given(st.integers(1, 50))
def test_whatever_it_does_between_two_looks_it_does_not_hang(does: dict[str, float], every: int) -> None:
    works: list[Work | None] = []
    for look in range(400):
        done = {name: getattr(IDLE, name) + amount * (look // every) for name, amount in does.items()}
        works.append(replace(IDLE, **done))
    assert not watched(HangWatch(QUICK), silent(3 * FLOOR_S), works)


@pytest.mark.parametrize(
    "seen",
    [
        None,
        replace(IDLE, pids=frozenset()),
        replace(IDLE, is_at_work=True),
        replace(IDLE, gpu_idle=False),
        replace(IDLE, gpu_idle=None),
    ],
    ids=["no /proc", "no process", "stopped, frozen or on a disk", "its GPU works", "no reading of its GPU"],
)
def test_what_cannot_be_seen_counts_as_life(seen: Work | None) -> None:
    assert not watched(HangWatch(QUICK), silent(5 * FLOOR_S), [seen])
    assert not watched(HangWatch(QUICK), silent(FLOOR_S + 30), [*[IDLE] * 20, seen, IDLE]), "once is enough"


def test_nothing_is_a_hang_of_a_run_that_was_never_seen_to_step_or_whose_rhythm_is_not_known() -> None:
    assert not watched(HangWatch(QUICK), silent(5 * FLOOR_S), [IDLE], stepped=False)
    assert not watched(HangWatch(Rhythm([1.0] * (LEAST_INTERVALS - 1))), silent(5 * FLOOR_S), [IDLE])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_time_that_was_not_watched_is_no_silence(gaps: list[float]) -> None:
    """A worker that was frozen, a machine that slept or swapped: ticks that come late."""
    watch, now_s = HangWatch(QUICK), 0.0
    for gap_s in gaps:
        now_s += gap_s
        assert watch.look(Moment(now_s, "same", runs=True, has_stepped=True), lambda _since: IDLE) is None


def test_a_pause_or_suspension_begins_it_anew() -> None:
    nearly = silent(FLOOR_S + 30)
    assert not watched(HangWatch(QUICK), [*nearly, None, *nearly, None, *nearly], [IDLE])


def test_an_output_begins_it_anew_and_its_interval_is_learned() -> None:
    rhythm = Rhythm([1.0] * LEAST_INTERVALS)
    signs = [*silent(FLOOR_S), "more", *(["more"] * int(FLOOR_S * 1.5 / TICK_S))]
    assert not watched(HangWatch(rhythm), signs, [IDLE])
    assert rhythm.limit_s == pytest.approx(LONGEST_TIMES * (FLOOR_S + TICK_S))


def test_the_work_of_processes_is_read_from_proc() -> None:
    code = "import sys, time; input(); sum(range(20_000_000)); print('done', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def waits() -> bool:
            seen = look_at([child.pid], None)
            return seen is not None and not seen.is_at_work

        wait_until(waits)
        before = look_at([child.pid], True)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        after = look_at([child.pid], True)
        assert before is not None
        assert after is not None
        assert after.cpu_s - before.cpu_s > 0.05
        assert after.moved > before.moved
        wait_until(waits)
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: (seen := look_at([child.pid], None)) is not None and seen.is_at_work)
        os.kill(child.pid, signal.SIGCONT)
        child.kill()
        child.wait()
        assert look_at([child.pid], True) is None


def test_who_only_waits_for_work_elsewhere_is_not_judged(tmp_path: Path) -> None:
    """Its own processor time says nothing: the training is below a daemon, or on another machine."""
    client = tmp_path / "docker"
    client.symlink_to("/bin/sleep")
    with subprocess.Popen([str(client), "60"]) as child:
        wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "docker\n")
        assert look_at([child.pid], True) is None
        assert look_at([os.getpid()], True) is not None
        child.kill()


def test_a_gpu_that_is_open_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GPU_FILES", (str(tmp_path / "nvidia"),))
    assert not processes.has_gpu_open([os.getpid()])
    with (tmp_path / "nvidia0").open("w"):
        assert processes.has_gpu_open([os.getpid()])
