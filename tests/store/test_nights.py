"""Reports of nights in a real database: the text at 80 columns, the page, and what they are made of."""

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from msgspec import structs
from msgspec.structs import replace
from rich.cells import cell_len

from backprop.cli.render.plots import Style
from backprop.cli.report import as_json, needs, readings, sweep
from backprop.cli.report.books import Account, Stay, Unit, book
from backprop.cli.report.night import Night, read_night
from backprop.cli.report.page import page
from backprop.cli.report.text import Shown, lines
from backprop.cli.report.unknowns import unknowns
from backprop.scheduler.lifecycle import State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import ClockChange
from backprop.scheduler.store import samples
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics, nights
from backprop.scheduler.store.rows import execute
from tests.support.harness import ROOT
from tests.support.nights import HOSTILE, NightPlan, write_night
from tests.support.store_rows import add_run

PLAN = NightPlan()
DRAWN = Style()
SNAPSHOTS = ROOT / "tests" / "fixtures" / "reports"
"""What is printed at 80 columns, for nights of so many runs."""


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(database: Database, plan: NightPlan = PLAN, group: str | None = None) -> Night:
    return read_night(database, plan.since_s, plan.until_s, group)


def shown(database: Database, plan: NightPlan = PLAN, group: str | None = None) -> Shown:
    night = read(database, plan, group)
    best = [run.id for run, _ in night.ranking.places[:5]]
    curves = {
        run_id: [value for _, _, value, _ in metrics.curve(database, run_id, night.ranking.metric)]
        for run_id in best
    }
    return Shown(
        night, needs.find(night, database), readings.read_all(night), curves, sweep.marginals(night.ranking)
    )


def text_of(database: Database, plan: NightPlan = PLAN, width: int = 80, style: Style = DRAWN) -> list[str]:
    found = lines(shown(database, plan), width, style)
    found[-1] = re.sub(r"[\d.]+ \wB in .*", "SIZE in HOME", found[-1])
    return found


def test_a_night_of_thirty_runs_as_text(database: Database) -> None:
    write_night(database, PLAN)
    assert "".join(f"{line}\n" for line in text_of(database)) == (SNAPSHOTS / "30.txt").read_text()


def test_what_nobody_knows_of_the_books_is_said(database: Database) -> None:
    write_night(database, PLAN)
    night = read(database)
    first = night.segments[0]
    stay = Stay(first.run_id, 0, 100, startup_s=10, saving_s=5)

    def said(stay: Stay, **changed: object) -> list[str]:
        books = [book(Unit(None, 1), [stay], [], [], 100)]
        return list(unknowns(replace(night, books=books, segments=[structs.replace(first, **changed)])))

    [saving] = said(replace(stay, saving_s=0.0))
    assert saving.startswith("Saving is what is known of saves")
    assert said(replace(stay, saving_s=0.0, startup_s=100.0)) == []
    assert said(stay)[1].startswith("When in its segment a run saved or was paused is not known")
    assert said(stay) == said(replace(stay, saving_s=0.0, paused_s=5.0))
    assert said(stay, ended_at_s=None)[-1].startswith("What still runs has its pauses")
    lost = said(stay, outcome=SegmentOutcome.LOST, cut_cost_s=None)
    assert lost[-1] == "A lost segment's time after its last save counts as redone."
    assert all(len(sentence) <= 80 for sentence in (*lost, *said(stay, ended_at_s=None)))


def test_a_night_of_one_run_as_text(database: Database) -> None:
    plan = NightPlan(runs=1, gpu=False, hot=False, lanes=1, group=None)
    write_night(database, plan)
    assert "".join(f"{line}\n" for line in text_of(database, plan)) == (SNAPSHOTS / "1.txt").read_text()


def test_a_night_without_a_run_as_text(database: Database) -> None:
    assert "".join(f"{line}\n" for line in text_of(database)) == (SNAPSHOTS / "0.txt").read_text()


@pytest.mark.parametrize("width", [80, 117, 200])
@pytest.mark.parametrize("style", [Style(), Style(plain=True)], ids=["drawn", "plain"])
def test_no_line_is_too_long_whatever_the_names(database: Database, width: int, style: Style) -> None:
    plan = NightPlan(runs=12, names=HOSTILE)
    write_night(database, plan)
    found = text_of(database, plan, width, style)
    assert max(map(cell_len, found)) <= width
    assert all(line.isprintable() for line in found)


def test_colours_only_add_escapes(database: Database) -> None:
    write_night(database, NightPlan(runs=6))
    plan = NightPlan(runs=6)
    coloured = text_of(database, plan, style=Style(colour=True))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in coloured] == text_of(database, plan)


# The page


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed in its turn."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names.update(name for name, _ in attrs)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "plan",
    [
        NightPlan(runs=0),
        NightPlan(runs=1, gpu=False),
        PLAN,
        NightPlan(runs=30, names=HOSTILE, metrics=False),
        NightPlan(runs=1000, metrics=False),
    ],
    ids=["none", "one without a GPU", "thirty", "hostile names", "a thousand"],
)
def test_the_page_is_whole_and_asks_for_nothing(database: Database, plan: NightPlan) -> None:
    write_night(database, plan)
    found = page(shown(database, plan), database)
    read_ = Reader(found)
    assert not read_.tags & {"script", "img", "link", "iframe", "object", "foreignobject", "path", "image"}
    assert read_.links == []
    assert not any(name.startswith("on") for name in read_.names)
    assert "url(" not in found and "@import" not in found
    assert len(found) < 1_000_000
    if plan.runs and not plan.names:
        assert "lr0.001-s" in read_.text, "names are text, not outlines"
    assert plan.names == () or "<script>" in read_.text


def test_the_page_says_what_the_text_says(database: Database) -> None:
    write_night(database, PLAN)
    found = Reader(page(shown(database), database)).text
    for part in (
        "28 of 30 runs completed, 2 failed",
        "backprop resume 8505-10",
        "starts below 80 °C",
        "limit 85 °C",
        "best three green",
        "lr0.001-s3, segment 3, ",
        "23.5 GiB · 360 W",
        "0.0003",
    ):
        assert part in found, part


def test_values_at_the_edge_of_numbers_are_drawn_or_left_out(database: Database) -> None:
    write_night(database, NightPlan(runs=4))
    plan = NightPlan(runs=4)
    for run_id, values in {
        "8505-1": "CASE segment % 2 WHEN 0 THEN 1.7e308 ELSE -1.7e308 END",
        "8505-2": "4.9e-324",
        "8505-3": "-1e-320 * segment",
    }.items():
        database.write(
            lambda r=run_id, v=values: execute(f"UPDATE metrics SET value = {v} WHERE run_id = ?", (r,))
        )
        database.write(
            lambda r=run_id, v=values: execute(f"UPDATE runs SET last_loss = ({v}) WHERE id = ?", (r,))
        )
    found = page(shown(database, plan), database)
    assert not re.search(r"[ ,\"](nan|inf)\b", found)
    assert text_of(database, plan)


def test_a_page_that_is_written_again_and_again_is_read_again(database: Database) -> None:
    made = shown(database)
    assert 'http-equiv="refresh" content="60"' in page(made, database, refresh_s=60)
    assert "refresh" not in page(made, database)


# What they are made of


def test_the_books_of_a_night_balance(database: Database) -> None:
    write_night(database, PLAN)
    night = read(database)
    (book,) = night.books
    assert sum(book.total(account) for account in Account) == 36_000
    assert book.total(Account.STARTUP) > 0 and book.total(Account.REDONE) > 0
    told = as_json.view(night, [], readings.read_all(night), [])
    assert sum(told["units"][0]["seconds"].values()) == told["wall_s"] == 36_000
    assert set(told["units"][0]["idle_s"]) >= {"temperature", "nothing queued"}


def test_a_suspended_run_leaves_its_gpu_to_others(database: Database) -> None:
    """Its VRAM goes out in 20 s; others have the GPU for ten minutes; it comes back in 10 s."""
    plan = NightPlan(runs=1, lanes=1, hot=False)
    [run_id] = write_night(database, plan)
    before = read(database, plan)
    begin_s = before.segments[0].started_at_s
    times = (begin_s + 100, begin_s + 120, begin_s + 400, begin_s + 410)
    database.write(
        lambda: execute(
            "INSERT INTO suspensions (run_id, segment, ordered_at_s, left_at_s, claimed_at_s, on_at_s)"
            " VALUES (?, 1, ?, ?, ?, ?)",
            (run_id, *times),
        )
    )
    database.write(lambda: execute("UPDATE segments SET running_s = running_s - 280 WHERE number = 1", ()))
    night = read(database, plan)
    [one] = nights.suspensions_of(database, run_id)
    assert one.moving_s == 30
    [was], [made] = before.books, night.books
    assert made.total(Account.SUSPENSION) == 30
    assert made.total(Account.PAUSED) == was.total(Account.PAUSED) == 0
    assert was.total(Account.TRAINING) - made.total(Account.TRAINING) == 310
    assert made.total(Account.IDLE) - was.total(Account.IDLE) == 280
    assert sum(made.total(account) for account in Account) == 36_000
    assert any("suspend/thaw" in line for line in text_of(database, plan))
    found = Reader(page(shown(database, plan), database)).text
    assert "suspended at 22:0" in found
    late = NightPlan(runs=1, lanes=1, hot=False, until_s=begin_s + 300, hours=0.05)
    assert read(database, late).books[0].total(Account.IDLE) == 180, "it is away until the end of the span"


def test_a_night_in_which_the_clock_was_set_balances(database: Database) -> None:
    write_night(database, PLAN)
    samples.note_clock_change(database, ClockChange(PLAN.since_s + 20_000, 3600.0, 0.0))
    night = read(database)
    assert [sum(one.seconds for one in book.slices) for book in night.books] == [36_000 - 3600]
    samples.note_clock_change(database, ClockChange(PLAN.since_s + 25_000, 400.0, 400.0))
    assert read(database).books[0].total(Account.ASLEEP) == 400


def test_a_segment_that_lives_on_keeps_its_begin(database: Database) -> None:
    """Those that were claimed after it and have ended say nothing about it."""
    write_night(database, PLAN)
    begun_s = PLAN.since_s + 20
    first = "SELECT MIN(serial) FROM segments"
    database.write(
        lambda: execute(
            f"UPDATE segments SET ended_at_s = NULL, outcome = NULL, started_at_s = ? WHERE serial = ({first})",
            (begun_s,),
        )
    )
    night = read(database)
    assert night.segments[0].outcome is None
    assert (night.stays[0].from_s, night.stays[0].to_s) == (20, 36_000)
    assert night.books[0].total(Account.IDLE) == 20


def test_the_hour_that_comes_twice_is_told_by_the_local_clock(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    until_s = time.mktime((2026, 10, 25, 8, 0, 0, 0, 0, 0))
    plan = NightPlan(runs=8, until_s=until_s, hours=10)
    write_night(database, plan)
    night = read(database, plan)
    assert sum(one.seconds for one in night.books[0].slices) == 36_000
    assert text_of(database, plan)[0].startswith("Sat 24 Oct 23:00")
    assert Reader(page(shown(database, plan), database)).text.count("02:00") >= 2


def test_without_a_gpu_the_places_for_runs_are_counted(database: Database) -> None:
    plan = NightPlan(runs=6, gpu=False)
    write_night(database, plan)
    execute("INSERT INTO workers VALUES ('w1', 1, 3, ?, NULL, NULL)", (plan.since_s,))
    night = read(database, plan)
    assert [book.unit.label for book in night.books] == ["slot 1", "slot 2", "slot 3"]
    assert {sum(one.seconds for one in book.slices) for book in night.books} == {36_000}
    assert night.books[2].busy_share == 0


def test_what_saves_took_is_no_training(database: Database) -> None:
    plan = NightPlan(runs=1, gpu=False, hot=False, lanes=1, group=None)
    write_night(database, plan)
    (before,) = read(database, plan).books
    execute("UPDATE segments SET saving_s = ? WHERE number = 1", (20.4,))
    (after,) = read(database, plan).books
    assert (before.total(Account.SAVING), after.total(Account.SAVING)) == (0, 20)
    assert after.total(Account.TRAINING) == before.total(Account.TRAINING) - 20
    assert sum(one.seconds for one in after.slices) == 36_000


def test_a_report_of_a_group_has_its_members_alone(database: Database) -> None:
    write_night(database, PLAN)
    add_run(database, "other", State.HELD)
    assert len(read(database, group="lr-sweep").runs) == 30
    assert not read(database, group="lr-sweep").held
    assert [run.id for run in read(database).held] == ["other"]
    assert read(database, group="none").runs == {}
    assert nights.has_members(database, "lr-sweep") and not nights.has_members(database, "none")


def test_what_needs_the_user_comes_with_commands(database: Database) -> None:
    write_night(database, PLAN)
    add_run(database, "h", State.HELD, name="kept")
    add_run(database, "q")
    found = shown(database).needs
    assert [one.title for one in found[:4]] == [
        "No worker is running", "lr0.001-s3", "lr0.0003-s2", "kept, held",
    ]  # fmt: skip
    assert (found[4].title[:16], found[4].title[-6:]) == ("GPU 0 idle 01:33", "24m30s")
    assert found[1].commands == ("backprop logs 8505-10", "backprop resume 8505-10")
    assert found[3].commands == ("backprop why h", "backprop release h")


def test_reading_a_night_goes_along_indexes(database: Database) -> None:
    for statement in (
        nights._SEGMENTS.format(ended="ended_at_s >= ?", group=""),
        nights._ENDED.format(group=""),
    ):
        values = (1.0,) * statement.count("?")
        plan = database.rows(f"EXPLAIN QUERY PLAN {statement}", *values)
        assert any("USING INDEX" in row[3] or "COVERING INDEX" in row[3] for row in plan), plan
        assert not any(row[3].startswith("SCAN") for row in plan), plan
