"""What a worker remembers of a live segment, and the eye it keeps on its supervisor."""

from pathlib import Path
from typing import cast

import msgspec
import pytest

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor.base import Executor
from backprop.worker.segments.live import LiveSegment
from backprop.worker.segments.supervisor_watchdog import LINGER_S, MARGIN_S
from tests.support.store_rows import SPEC, add_run, claimed, get

BEGAN_S = 1000.0
GRACE_S = 30.0


class HandClock(Clock):
    """Both clocks at once, set by hand."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s


class Recorder:
    """An executor that only notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def folder(self, run_id: str, number: int) -> Path:
        return Path("/nowhere") / run_id / str(number)

    def is_recording(self, run_id: str, number: int) -> bool:
        return False

    def rouse(self, run_id: str, number: int) -> None:
        self.calls.append("rouse")

    def replace(self, run_id: str, number: int) -> None:
        self.calls.append("replace")

    def ask(self, run_id: str, number: int) -> None:
        self.calls.append("ask")


class Watched:
    """One claimed run whose time is moved by hand."""

    def __init__(self, database: Database, **spec: object) -> None:
        self.clock, self.executor = HandClock(), Recorder()
        self.context = Context(
            database.home,
            database,
            cast("Executor", self.executor),
            "w1",
            DEFAULTS,
            self.clock,
            Console(quiet=True),
        )
        changed = msgspec.structs.replace(SPEC, grace_s=GRACE_S, **{"at_timebox": "end"} | spec)
        claimed(database, add_run(database, "r1", spec=changed), now_s=BEGAN_S)
        self.database = database
        self.live = LiveSegment(self.context, CheckpointManager(self.context), ("r1", 1))

    @property
    def run(self) -> RunRecord:
        return get(self.database, "r1")

    def observe_for(self, seconds: float) -> None:
        """As the ticks of so many seconds do, two a second."""
        segment = queries.segment(self.database, "r1", 1)
        assert segment is not None
        for _ in range(round(seconds * 2)):
            self.live.observe(self.run, segment)
            self.live.check_supervisor(self.run)
            self.clock.now_s += 0.5


@pytest.mark.parametrize(
    ("spec", "box_s"),
    [
        ({"timebox_s": 20.0}, 20.0),
        ({"timebox_s": 20.0, "overrun_pct": 50.0}, 30.0),
        ({"timebox_s": 600.0, "max_total_s": 20.0}, 20.0),
        ({"timebox_s": 20.0, "overrun_pct": 50.0, "max_total_s": 25.0}, 25.0),
    ],
)
def test_a_supervisor_is_late_after_the_box_it_was_given(
    database: Database, spec: dict[str, float], box_s: float
) -> None:
    watched = Watched(database, **spec)
    allowed_s = box_s + GRACE_S + LINGER_S + MARGIN_S
    watched.observe_for(allowed_s)
    assert watched.executor.calls == []
    watched.observe_for(2)
    assert watched.executor.calls == ["rouse"]
    watched.observe_for(10)
    assert watched.executor.calls == ["rouse", "replace"]


def test_a_supervisor_is_not_late_where_nobody_has_decided_that_the_segment_ends(database: Database) -> None:
    watched = Watched(database, timebox_s=20.0, at_timebox="auto")
    watched.observe_for(200)
    assert watched.executor.calls == []


def test_one_that_begins_anew_is_asked_again_and_remembers_its_pauses(database: Database) -> None:
    watched = Watched(database)
    watched.observe_for(5)
    claims.pause(database, watched.run, "heat", "why")
    watched.observe_for(10)
    asked = msgspec.structs.replace(watched.run, intent=Intent.YIELD)
    watched.live.ask(asked)
    watched.live.ask(asked)
    assert watched.executor.calls == ["ask"], "to many scripts a second signal means: drop everything"
    paused_s = watched.live.paused_between_s(0, 2 * BEGAN_S)
    assert paused_s == pytest.approx(10, abs=0.5)
    watched.live.restart()
    watched.live.ask(asked)
    assert watched.executor.calls == ["ask", "ask"]
    assert watched.live.paused_between_s(0, 2 * BEGAN_S) == paused_s
    watched.live.close()
