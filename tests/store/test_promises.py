"""Two homes decide at the same moment: of what both have admitted, only what fits beside the other is claimed."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.governor.decide import Need
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database
from backprop.worker.admission import promises
from backprop.worker.admission.preparation import AdmittedRun, PreparedRun
from backprop.worker.admission.promises import PromisePoster
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.executor.board import VARIABLE, Promise
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.machine.state import MachineState, read_state
from tests.support.governor_cases import GIB, LIMITS, gpu, machine
from tests.support.harness import new_board
from tests.support.store_rows import add_run

NEED = Need(vram_mib=12 * GIB, source="declared")
CPU = Need(vram_mib=0, gpus=0)


class Side:
    """One home: what its worker does in a round, step by step. A process has one database open, so both share that."""

    def __init__(self, database: Database, root: Path) -> None:
        home = layout.ensure(Home(root))
        self.database = database
        self.executor = LocalExecutor(home)
        self.context = Context(
            home, self.database, self.executor, "w1", DEFAULTS, Clock(), Console(quiet=True)
        )
        self.poster = PromisePoster(self.context)

    def state(self) -> MachineState:
        return read_state(
            self.database, machine(gpu()), self.executor, self.context.settings, self.context.clock
        )

    def admit(self, state: MachineState, needs: Sequence[Need] = (NEED,)) -> list[AdmittedRun]:
        """Admit runs as if each were alone."""
        admitted: list[AdmittedRun] = []
        for number, need in enumerate(needs):
            run = add_run(self.database, f"{self.context.home.root.name}{number}")
            lock = locks.take(self.context.home.locks / run.id)
            assert lock is not None
            admitted.append(
                (PreparedRun(run, StartPoint(), lock, {}), state.decide(need, LIMITS), need),
            )
        return admitted


@pytest.fixture
def sides(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Side]:
    monkeypatch.setenv(VARIABLE, str(new_board(tmp_path / "shared")))
    monkeypatch.setattr(promises, "APART_S", 0.0)
    return [Side(database, tmp_path / name) for name in ("a", "b")]


def release(kept: Sequence[AdmittedRun]) -> None:
    for prepared, _, _ in kept:
        prepared.release()


def is_closed(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return True
    return False


def test_of_two_that_have_decided_already_the_later_takes_back(sides: list[Side]) -> None:
    first, second = sides
    theirs = second.admit(second.state(), [CPU, NEED, NEED])
    before = second.state()
    mine = first.admit(first.state())
    kept = first.poster.post(mine, first.state())
    assert [prepared.promise is not None for prepared, _, _ in kept] == [True]
    rest = second.poster.post(theirs, before)
    assert [need for _, _, need in rest] == [CPU, NEED], "a CPU run never waits, and one more run fits"
    assert is_closed(theirs[2][0].lock), "it can be claimed in a later round"
    assert [promise.mib for promise in first.executor.board.others()] == [12 * GIB]
    release(kept)
    assert second.state().elsewhere == []
    release(rest)


def test_of_two_at_the_very_same_moment_none_overlooks_the_other(
    sides: list[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have posted before either looks. Neither keeps what does not fit; each may try again."""
    first, second = sides
    big = Need(vram_mib=20 * GIB, source="declared")
    states = [side.state() for side in sides]
    admitted = [side.admit(state, [big]) for side, state in zip(sides, states, strict=True)]
    look: Callable[[], list[Promise]] = first.executor.board.others
    seen: list[list[AdmittedRun]] = []

    def after_the_other_has_posted() -> list[Promise]:
        if not seen:
            seen.append([])
            seen[0] = second.poster.post(admitted[1], states[1])
        return look()

    monkeypatch.setattr(first.executor.board, "others", after_the_other_has_posted)
    kept = first.poster.post(admitted[0], states[0])
    assert seen == [[]], "it saw the first one's promise"
    assert len(kept) == 1, "the other has taken its own back by then"
    release(kept)


def test_a_home_that_cannot_post_starts_its_runs_as_before(
    sides: list[Side], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    (side, _) = sides
    kept = side.poster.post(side.admit(side.state()), side.state())
    assert [prepared.promise for prepared, _, _ in kept] == [None]
    release(kept)


def test_trouble_while_posting_leaks_nothing(sides: list[Side], monkeypatch: pytest.MonkeyPatch) -> None:
    (side, _) = sides

    def fails() -> list[Promise]:
        raise MemoryError

    state = side.state()
    admitted = side.admit(state, [NEED, CPU])
    count = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(side.executor.board, "others", fails)
    with pytest.raises(MemoryError):
        side.poster.post(admitted, state)
    assert len(os.listdir("/proc/self/fd")) == count - 2  # noqa: PTH208


def test_an_exclusive_promise_of_another_home_counts(sides: list[Side]) -> None:
    first, second = sides
    handle = first.executor.board.post(("GPU-0",), 1, True)
    state = second.state()
    small = Need(vram_mib=1, source="declared")
    assert state.decide(small, LIMITS).sentence() == "GPU 0: taken; another home has it exclusively"
    assert state.decide(CPU, LIMITS).admitted
    room = state.room(state.snapshot.gpus[0])
    assert room is not None
    assert (room.elsewhere_mib, room.promised_mib) == (1, 1)
    os.close(handle)
