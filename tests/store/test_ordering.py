"""Whose turn it is: hold, release and move, and a long wait that lets nothing pass."""

import os
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.errors import IllegalMove
from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import NewRun, QueuePosition
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import enqueue, ordering
from backprop.scheduler.store.writes.ordering import TargetSlot
from backprop.worker.admission.waiting_reasons import WaitingReasons
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor.local import LocalExecutor
from tests.support.harness import COMMAND, QUIET_LIMITS, SCRIPTS, Bench, wait_until, without_roots_rights
from tests.support.refusals import refused
from tests.support.store_rows import SPEC, add_run, get

IMPATIENT = (sys.executable, str(SCRIPTS / "impatient.py"))
NOW_S = 1_800_000_000.0


def line_up(database: Database, *ids: str, priority: int = 0, at_s: float = NOW_S) -> None:
    place = QueuePosition(priority=priority)
    enqueue.enqueue_all(database, [NewRun(id=one, name=one, spec=SPEC, place=place) for one in ids], at_s)


def turns(database: Database) -> str:
    return " ".join(run.id for run in queries.queue(database, NOW_S + 1000))


@pytest.mark.parametrize(
    ("moved", "where", "other", "expected"),
    [
        ("d", TargetSlot.FIRST, None, "d p q a b c e"),
        ("e c", TargetSlot.FIRST, None, "e c p q a b d"),
        ("p", TargetSlot.LAST, None, "q a b c d e p"),
        ("c a", TargetSlot.LAST, None, "p q b d e c a"),
        ("e d", TargetSlot.BEFORE, "b", "p q a e d b c"),
        ("a", TargetSlot.AFTER, "c", "p q b c a d e"),
        ("a", TargetSlot.AFTER, "q", "p q a b c d e"),
        ("e", TargetSlot.BEFORE, "p", "e p q a b c d"),
        ("a", TargetSlot.AFTER, "e", "p q b c d e a"),
        ("a b c d e", TargetSlot.AFTER, "p", "p a b c d e q"),
        ("b", TargetSlot.BEFORE, "c", "p q a b c d e"),
    ],
)
def test_a_move_puts_runs_exactly_there(
    database: Database, moved: str, where: TargetSlot, other: str | None, expected: str
) -> None:
    line_up(database, "p", "q", priority=5)
    line_up(database, "a", "b", "c", "d", "e")
    assert ordering.move_to(database, moved.split(), where, other, NOW_S + 1) == moved.split()
    assert turns(database) == expected
    line_up(database, "new", priority=get(database, expected.split()[-1]).priority, at_s=NOW_S + 2)
    assert turns(database) == f"{expected} new", "what comes later stands behind"


def test_a_queue_is_read_whole_unless_somebody_asks_for_less(database: Database) -> None:
    line_up(database, *(f"r{number:04}" for number in range(500)))
    assert len(queries.queue(database, NOW_S + 1000)) == 500
    assert len(queries.queue(database, NOW_S + 1000, limit=7)) == 7


def test_members_of_a_batch_are_so_close_that_others_make_room(database: Database) -> None:
    """A microsecond apart, which at today's seconds is four steps of a float."""
    line_up(database, *"abcdefgh")
    line_up(database, *"uvwxyz", at_s=NOW_S + 1)
    assert ordering.move_to(database, list("zyxwvu"), TargetSlot.BEFORE, "c", NOW_S + 2) == list("zyxwvu")
    assert turns(database) == "a b z y x w v u c d e f g h"
    for other in "hgfed":
        ordering.move_to(database, ["a"], TargetSlot.AFTER, other, NOW_S + 2)
    assert turns(database) == "b z y x w v u c d a e f g h"
    assert all(get(database, one).turn_s <= NOW_S + 2 for one in "abcdefghuvwxyz")


def test_what_cannot_be_moved(database: Database) -> None:
    line_up(database, "a", "b")
    running = add_run(database, "r")
    from tests.support.store_rows import claimed

    claimed(database, running)
    assert ordering.move_to(database, ["r", "b", "gone"], TargetSlot.FIRST, None, NOW_S) == ["b"]
    with pytest.raises(IllegalMove, match="run r is not waiting in the queue"):
        ordering.move_to(database, ["a"], TargetSlot.BEFORE, "r", NOW_S)
    with pytest.raises(IllegalMove, match="run a cannot be moved before itself"):
        ordering.move_to(database, ["a"], TargetSlot.BEFORE, "a", NOW_S)
    assert turns(database) == "b a"


def test_the_commands(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    for name in "abc":
        bench.queue("train.py", "--run-id", name)
    bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-3", "--group", "g", "train.py")
    members = [run["id"] for run in bench.runs() if run["name"].startswith("train-")][::-1]
    assert bench.backprop("move", "c", "g", "--first").stdout.splitlines()[0] == "moved 4 runs"
    assert bench.backprop("move", "a", "--after", "b").stdout == "moved train (a)\n"
    assert "would move train (a), queued" in bench.backprop("move", "a", "--first", "--dry-run").stdout
    assert "one of --first, --last" in refused(bench, 2, "move", "a", "--first", "--last")
    assert "one of --first, --last" in refused(bench, 2, "move", "a")
    assert bench.backprop("hold", "b").stdout == "held train (b)\n"
    assert "run b is held; only a queued run can be held" in refused(bench, 10, "hold", "b")
    bench.worker("--drain", "-p", "1").wait(timeout=60)
    started = sorted(["a", "c", *members], key=lambda run: float(str(bench.column(run, "started_at_s"))))
    assert started == ["c", *members, "a"]
    assert bench.state("b") == "held"
    assert bench.backprop("release", "b").stdout == "released train (b)\n"
    assert bench.state("b") == "queued"
    assert "run a is completed; only a waiting run can be moved" in refused(bench, 10, "move", "a", "--last")
    assert "run a is not waiting in the queue" in refused(bench, 10, "move", "b", "--before", "a")


class Watch(Clock):
    """Both clocks at once, set by hand."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def waits(database: Database, watch: Watch) -> WaitingReasons:
    home: Home = database.home
    context = Context(home, database, LocalExecutor(home), "w1", DEFAULTS, watch, Console(quiet=True))
    return WaitingReasons(context)


def refusal(*rules: Rule) -> Decision:
    return Decision(tuple(Denial(rule, 1, 0, f"too little {rule.value}") for rule in rules), ())


def test_a_long_wait_lets_nothing_pass_until_holding_back_is_futile(
    database: Database, watch: Watch, waits: WaitingReasons
) -> None:
    line_up(database, "big", "small")

    def starving(decision: Decision) -> bool:
        waits.record([(get(database, "big"), decision)])
        return waits.starving(get(database, "big"), decision) is not None

    vram = refusal(Rule.VRAM)
    waits.note_alive(1)
    assert not starving(vram)
    watch.now_s += starvation.STARVING_S - 60
    waits.note_alive(1)
    assert not starving(vram)
    watch.now_s += 60
    waits.note_alive(1)
    assert starving(vram)
    found = waits.starving(get(database, "big"), vram)
    assert found is not None
    began = time.strftime("%H:%M", time.localtime(NOW_S))
    assert found.behind().sentence() == (
        f"waiting its turn behind big (big), which has waited for free VRAM since {began}"
    )
    watch.now_s += starvation.CLEARS_S - 1
    waits.note_alive(0)
    assert starving(vram), "memory takes a moment to come back"
    watch.now_s += 1
    waits.note_alive(0)
    assert not starving(vram), "somebody else has it"
    watch.now_s += starvation.STARVING_S - 1
    waits.note_alive(2)
    assert not starving(vram), "half an hour of its own for everybody else"
    watch.now_s += 1
    waits.note_alive(2)
    assert starving(vram)
    assert not starving(refusal(Rule.TEMPERATURE)), "not what our runs could give back"


def test_a_wait_is_remembered_by_the_next_worker_and_forgotten_by_a_start(
    database: Database, watch: Watch, waits: WaitingReasons
) -> None:
    line_up(database, "big")
    waits.record([(get(database, "big"), refusal(Rule.PARALLEL))])
    assert get(database, "big").reason == "too little running runs"
    watch.now_s += starvation.STARVING_S
    other = WaitingReasons(waits._context)
    other.note_alive(1)
    assert other.starving(get(database, "big"), refusal(Rule.PARALLEL)) is not None
    from tests.support.store_rows import claimed

    claimed(database, get(database, "big"))
    waits.record([])
    queue_again(database)
    waits.note_alive(1)
    assert waits.starving(get(database, "big"), refusal(Rule.PARALLEL)) is None


def queue_again(database: Database) -> None:
    from backprop.scheduler.lifecycle import Event
    from backprop.scheduler.outcome.move import NextMove
    from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
    from backprop.scheduler.outcome.segment_result import SegmentResult
    from backprop.scheduler.store.writes import claims

    claims.apply_result(
        database,
        get(database, "big"),
        NextMove(Event.REQUEUED, SegmentOutcome.TIMEBOXED, "timebox"),
        SegmentResult(),
        NOW_S,
    )


def test_reasons_are_written_when_they_change_and_not_every_tick(
    database: Database, watch: Watch, waits: WaitingReasons
) -> None:
    line_up(database, "big")
    waits.record([(get(database, "big"), refusal(Rule.RAM))])
    before = written(database)
    for _ in range(5):
        watch.now_s += 60
        waits.record([(get(database, "big"), refusal(Rule.RAM))])
    assert written(database) == before
    since = get(database, "big").waiting[0].since_s
    waits.record([(get(database, "big"), refusal(Rule.RAM, Rule.LOAD))])
    now = get(database, "big").waiting
    assert [(one.rule, one.since_s) for one in now] == [("free RAM", since), ("CPU load", watch.now_s)]


def written(database: Database) -> tuple[int, int]:
    info = os.stat(database.home.database)  # noqa: PTH116
    return info.st_mtime_ns, info.st_size


def test_a_big_run_is_not_passed_for_ever(bench: Bench) -> None:
    """It wants the machine to itself; small ones, queued again and again, kept it busy. Its wait began an hour ago."""
    bench.script(
        "train.py",
        """
        import time
        from pathlib import Path
        print("up", flush=True)
        while not Path("go").exists():
            time.sleep(0.02)
        """,
    )
    first = bench.queue("train.py", "-n", "small")
    bench.worker("-p", "2")
    bench.wait_for_log(first, "up")
    big = bench.queue("train.py", "-n", "big", "-p", "1", "--hold")
    since = [{"rule": "running runs", "text": "why", "since_s": time.time() - 3600}]
    set_waiting(bench.home, big, msgspec.json.encode(since).decode())
    assert bench.backprop("release", big).returncode == 0
    small = bench.queue("train.py", "-n", "small")
    wait_until(lambda: f"waiting its turn behind {big} (big)" in str(bench.column(small, "reason")))
    assert "a longer wait" in bench.backprop("why", small).stdout
    forecast = bench.backprop("run", "--dry-run", *QUIET_LIMITS, "train.py").stdout
    assert f"would wait: waiting its turn behind {big} (big)" in forecast
    (bench.project / "go").touch()
    bench.wait_for(small, "completed")
    bench.wait_for(big, "completed")
    assert claimed_as(bench.home, small) > claimed_as(bench.home, big)


@pytest.mark.parametrize("slots", ["1", "2"])
def test_everybody_in_a_longer_queue_is_told_why_it_waits(bench: Bench, slots: str) -> None:
    """More than are looked at first, fewer than are looked at at most: with a slot left that none of them may take, and
    without one. The worker goes on meanwhile."""
    bench.script("train.py", "import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    done = bench.backprop("run", "-q", *QUIET_LIMITS, "-p", "1", "--array", "1-40", "train.py")
    assert done.returncode == 0, done.stderr
    first, second, *_, last = done.stdout.split()
    bench.worker("-p", slots)
    bench.wait_for_log(first, "up")
    told = "waiting for a slot (1 of 1 busy)"
    wait_until(lambda: bench.column(last, "reason") == told, saw=lambda: bench.column(last, "reason"))
    assert bench.column(second, "reason") == told
    assert bench.backprop("stop", first).returncode == 0
    bench.wait_for_log(second, "up")
    assert bench.column(first, "state") == "stopped"
    assert bench.column(last, "state") == "queued"


def claimed_as(home: Path, run_id: str) -> int:
    """The serial of its first claim. Runs that are claimed together have started at the same time."""
    import sqlite3

    database = sqlite3.connect(home / "backprop.db", timeout=10)
    try:
        found = database.execute("SELECT MIN(serial) FROM segments WHERE run_id = ?", (run_id,)).fetchone()
        return int(found[0])
    finally:
        database.close()


def set_waiting(home: Path, run_id: str, text: str) -> None:
    import sqlite3

    database = sqlite3.connect(home / "backprop.db", timeout=10)
    try:
        with database:
            database.execute("UPDATE runs SET waiting = ? WHERE id = ?", (text, run_id))
    finally:
        database.close()


def test_what_is_far_behind_the_front_of_the_queue_is_looked_at_too(bench: Bench) -> None:
    """The front waits for more RAM than is free; what is behind it does not."""
    short_of = (psutil.virtual_memory().total >> 20) / 1024 - 0.01
    bench.script("train.py", "print('up', flush=True)\n")
    words = ("--max-cpu-load", "1000", "--gpu-probe", "none", "--array", "1-20", "train.py")
    done = bench.backprop("run", "-q", "--min-free-ram", f"{short_of:.3f}", *words)
    assert done.returncode == 0, done.stderr
    behind = bench.queue("train.py")
    bench.worker(
        command=(*IMPATIENT, "worker.admission.admission.HEAD=2", "worker.admission.admission.ALL=4", "--")
    )
    bench.wait_for(behind, "completed")
    *_, last = done.stdout.split()
    wait_until(lambda: "RAM" in str(bench.column(last, "reason")), saw=lambda: bench.column(last, "reason"))


def test_one_that_cannot_be_looked_at_keeps_no_other_from_its_start(bench: Bench) -> None:
    """The share with its checkpoint is away, say, so that a look fails in another way than by finding nothing."""
    bench.script("train.py", "print('up', flush=True)\n")
    away = bench.project / "away"
    away.mkdir()
    (away / "ckpt").touch()
    lost = bench.queue("--resume-from", str(away / "ckpt"), "train.py")
    other = bench.queue("train.py")
    away.chmod(0)
    try:
        bench.worker(command=(*without_roots_rights(), str(COMMAND)))
        bench.wait_for(other, "completed")
        told = f"waits for its checkpoint: {away / 'ckpt'} cannot be looked at (Permission denied)"
        wait_until(
            lambda: told in str(bench.column(lost, "reason")), saw=lambda: bench.column(lost, "reason")
        )
    finally:
        away.chmod(0o700)
    bench.wait_for(lost, "completed")
