"""Which port a run is given, and which it waits for."""

import socket
from collections.abc import Generator
from pathlib import Path

import pytest
from msgspec.structs import replace

from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.admission.port_wait import LONGEST_S, port_refusal
from backprop.worker.environment import ports
from backprop.worker.environment.ports import PortNote
from tests.support.store_rows import add_run

NOW_S = 1000.0


@pytest.fixture
def taken() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in ("mine", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return Home(tmp_path)


@pytest.fixture
def mine(database: Database) -> RunRecord:
    return replace(add_run(database, "mine"), segment=3)


@pytest.fixture
def other(database: Database) -> RunRecord:
    return replace(add_run(database, "other"), segment=7)


def refused(home: Home, run: RunRecord, others: list[RunRecord], now_s: float = NOW_S) -> str:
    decision = port_refusal(home, run, others, now_s)
    return decision.sentence() if decision is not None else ""


def test_a_taken_port_is_waited_for_beside_another_run(
    home: Home, mine: RunRecord, other: RunRecord, taken: int
) -> None:
    assert refused(home, mine, [other]) == ""
    ports.write_note(home.run_folder("mine"), PortNote(port=taken, segment=3))
    assert refused(home, mine, [other]).startswith(f"waits for port {taken}: ")
    assert refused(home, mine, []) == "", "nothing of ours can hold it: it is tried"
    assert refused(home, replace(mine, chain_start=3), [other]) == "", "its user has resumed it since"
    ports.write_note(home.run_folder("mine"), PortNote(port=next(iter(_free())), segment=3))
    assert refused(home, mine, [other]) == ""


def test_a_run_that_needs_the_same_port_is_waited_for_before_it_listens(
    home: Home, mine: RunRecord, other: RunRecord
) -> None:
    note = PortNote(port=next(iter(_free())), segment=1)
    ports.write_note(home.run_folder("mine"), note)
    assert refused(home, mine, [other]) == ""
    ports.write_note(home.run_folder("other"), note)
    assert refused(home, mine, [other]) == f"waits for port {note.port}: train (other) uses it too"


def test_without_a_number_the_runs_of_then_are_waited_for_but_not_for_ever(
    home: Home, mine: RunRecord, other: RunRecord
) -> None:
    note = PortNote(port=None, segment=3, beside=(("other", 7),), noted_s=NOW_S)
    ports.write_note(home.run_folder("mine"), note)
    assert refused(home, mine, [other]).startswith("waits for a port")
    assert refused(home, mine, [other], NOW_S + LONGEST_S) == ""
    assert refused(home, mine, [other], NOW_S - 1) == "", "the clock was set back"
    assert refused(home, mine, [replace(other, segment=8)]) == "", "that segment has ended"


def test_a_damaged_note_is_none(home: Home, mine: RunRecord, other: RunRecord) -> None:
    (home.run_folder("mine") / ports.NOTE).write_text('{"port": "x"')
    assert refused(home, mine, [other]) == ""


def test_the_offered_port_is_free_and_nobody_elses(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = _free()
    monkeypatch.setattr(ports, "OFFERED", [taken, *free])
    monkeypatch.setattr(ports, "MOST_TRIES", 1 + len(free))
    for _ in range(5):
        assert ports.offer({}, {str(free[0])}) == dict.fromkeys(ports.VARIABLES, str(free[1]))
    assert ports.offer({}, {str(port) for port in free}) == {}
    assert ports.offer({"MASTER_PORT": "1"}, ()) == {}, "what the user has set wins"


def _free() -> list[int]:
    """Return two ports that nobody listens on."""
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as another:
        return [one.getsockname()[1], another.getsockname()[1]]
