"""`backprop top` with keys: over a real home, by real key presses, and never waiting for the database."""

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install 'backprop-scheduler[tui]'")

from textual.pilot import Pilot

from backprop.cli.commands.top import verbs
from backprop.cli.live.keys import live
from backprop.cli.live.keys.app import KeysApp
from backprop.cli.live.keys.desk import Desk
from backprop.cli.live.keys.log_tail import LogTail
from backprop.cli.live.screen import EventLine, GpuLine, RunLine, Screen
from backprop.cli.render.glyphs import ASCII, UNICODE, Glyphs
from backprop.scheduler.home import layout
from tests.support.harness import ROOT, Bench
from tests.support.terminal import Terminal

SNAPSHOTS = ROOT / "tests" / "fixtures" / "screens"
SIZES = [(80, 24), (120, 40), (200, 50)]
QUICK_S = 0.2


def lines_of(app: KeysApp) -> list[str]:
    """Return what is on the screen, as text."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def marked(app: KeysApp) -> str:
    """Return the line of the chosen run."""
    return next((line for line in lines_of(app) if line.startswith(("▸", ">"))), "")


async def until(
    app: KeysApp, pilot: Pilot[Any], true_now: Callable[[], object], timeout_s: float = 20.0
) -> None:
    end_s = time.monotonic() + timeout_s
    while not true_now():
        assert time.monotonic() < end_s, "not shown:\n" + "\n".join(lines_of(app))
        await pilot.pause(0.02)


async def until_said(app: KeysApp, pilot: Pilot[Any], words: str) -> None:
    await until(app, pilot, lambda: words in "\n".join(lines_of(app)))


Script = Callable[[KeysApp, Pilot[Any]], Awaitable[None]]


def play(
    app: KeysApp, script: Script, size: tuple[int, int] = (100, 30), patience_s: float = 10.0
) -> list[str]:
    """Run the app without a terminal, and the script against it. Return what it says in the end."""

    async def whole() -> None:
        async with app.run_test(size=size) as pilot:
            await script(app, pilot)
            app.exit()

    try:
        asyncio.run(whole())
    finally:
        said = app.close(patience_s)
    return said


@pytest.fixture
def make(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., KeysApp]:
    """Return what makes the app over the bench's home."""
    for name in ("BACKPROP_HOME", "BACKPROP_BOARD"):
        monkeypatch.setenv(name, bench.environment[name])
    monkeypatch.setattr(live, "TICK_S", QUICK_S)

    def made(colour: bool = True, glyphs: Glyphs = UNICODE) -> KeysApp:
        home = layout.locate()
        return KeysApp(home, Desk(home, verbs()), glyphs, colour, QUICK_S)

    return made


def three(bench: Bench) -> list[str]:
    bench.script("train.py", "print(1)")
    return [bench.queue("train.py", "-n", name) for name in ("one", "two", "three")]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class StillDesk(Desk):
    """A desk with one picture."""

    def __init__(self, picture: Screen) -> None:
        self._picture = picture

    def look(self, name: str | None, most: int) -> tuple[Screen, list[str]]:
        return self._picture, []

    def close(self) -> None:
        pass


def picture() -> Screen:
    live = [
        RunLine(
            "a1",
            "lr=1e-3,seed=0",
            "running",
            2,
            "7:22 left",
            0.3,
            "4,900",
            61,
            "0.544",
            [3.0, 2, 1],
            "≈03:27",
        ),
        RunLine("a2", "実験・学習率", "running", 1, "2:00 left", 0.8, "120", 3, "1.2", [5.0, 4, 4], "≈05:00"),
    ]
    queued = [RunLine(f"q{at}", f"waits-{at}", "queued", 0, f"next {at}", eta="?") for at in range(1, 61)]
    gpu = GpuLine(0, "NVIDIA RTX 4090", 99, 12800, 23552, 74, 85, [10, 90, 50] * 40)
    ended = [EventLine(60.0 * at, "lr=1e-4", "again", "timeboxed: segment 2, 10:00") for at in range(6)]
    counts = [("running", 2), ("queued", 60), ("failed", 1)]
    return Screen(0.0, counts, [gpu], live, queued, 60, ended, "all by ≈07:50", host="3.1 GiB RAM free")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("utc")
def test_what_is_on_the_screen(size: tuple[int, int], tmp_path: Path) -> None:
    app = KeysApp(layout.Home(tmp_path), StillDesk(picture()), UNICODE, True, 60.0)
    seen: list[list[str]] = []

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "lr=1e-3")
        seen.append(lines_of(app))
        await pilot.press("pagedown", "pagedown", "pagedown", "j")
        seen.append(lines_of(app))
        await pilot.press("question_mark")
        await until_said(app, pilot, "back")
        seen.append(lines_of(app))

    play(app, script, size)
    width, height = size
    assert all(len(lines) == height for lines in seen)
    kept = SNAPSHOTS / f"{width}x{height}.txt"
    text = f"{'=' * width}\n".join("".join(f"{line}\n" for line in lines) for lines in seen)
    assert text == kept.read_text(), text


def test_keys_do_what_the_commands_do(bench: Bench, make: Callable[..., KeysApp]) -> None:
    one, two, three_ = three(bench)

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "next 3")
        assert " one " in marked(app)
        await pilot.press("G", "home", "j", "down")
        assert " three " in marked(app)
        await pilot.press("f")
        await until_said(app, pilot, f"moved three ({three_}) to the front of the queue")
        await until(app, pilot, lambda: "next 1" in marked(app))
        await pilot.press("x", "n")
        assert bench.state(three_) == "queued"
        await pilot.press("x")
        await until_said(app, pilot, f"stop three ({three_})? y stops it")
        await pilot.press("y")
        await until_said(app, pilot, f"stopped three ({three_})")
        # The run that was next to it is chosen now.
        await until(app, pilot, lambda: " one " in marked(app))
        await pilot.press("s")
        await until_said(app, pilot, "a worker suspends runs")
        await pilot.press("w")
        await until_said(app, pilot, f"{one} one is queued")
        await until_said(app, pilot, "no worker is running")
        await pilot.press("escape", "enter")
        await until_said(app, pilot, f"output of one ({one})")
        await pilot.press("q")

    play(make(), script)
    assert [bench.state(run) for run in (one, two, three_)] == ["queued", "queued", "stopped"]


def test_names_are_filtered_and_typing_is_no_command(bench: Bench, make: Callable[..., KeysApp]) -> None:
    three(bench)

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "next 3")
        # x, s, f and q are letters now.
        await pilot.press("slash", *"xsfq")
        await until_said(app, pilot, "names like: xsfq")
        await pilot.press("enter")
        await until_said(app, pilot, "no running or waiting run has a name like *xsfq*")
        await pilot.press("slash", *(["backspace"] * 4), *"t?o", "enter")
        await until(app, pilot, lambda: " two " in marked(app))
        assert "three" not in "\n".join(lines_of(app))
        await pilot.press("escape")
        await until_said(app, pilot, "three")

    play(make(), script)
    assert {run["state"] for run in bench.runs()} == {"queued"}


def test_a_live_run_is_watched_suspended_let_go_on_and_stopped(
    bench: Bench, make: Callable[..., KeysApp]
) -> None:
    bench.script(
        "train.py", "import time\nprint('\\rat 1 %\\rat 2 %')\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    run = bench.queue("train.py", "--name", "live")
    bench.worker("-p", "1")
    bench.wait_for_log(run, "begun")

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until(app, pilot, lambda: "running" in marked(app))
        await pilot.press("l")
        await until_said(app, pilot, "begun")
        assert "at 2 %" in lines_of(app) and "at 1 %" not in "\n".join(lines_of(app))
        await pilot.press("q", "f")
        await until_said(app, pilot, f"run {run} is running; only a waiting run can be moved")
        await pilot.press("s")
        await until_said(app, pilot, f"suspended live ({run})")
        await pilot.press("s")
        await until_said(app, pilot, f"live ({run}) goes on in its turn")
        await until(app, pilot, lambda: "running" in marked(app))
        await pilot.press("x", "y")
        await until_said(app, pilot, f"stopping live ({run}): it has 30 s to save")
        await until_said(app, pilot, "nothing is queued")

    play(make(), script)
    bench.wait_for(run, "stopped")


def test_a_locked_database_stops_no_key(
    bench: Bench, make: Callable[..., KeysApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = three(bench)
    monkeypatch.setattr(live, "LATE_S", 0.2)

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "next 3")
        other = sqlite3.connect(bench.home / "backprop.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            await until_said(app, pilot, "the database has not answered for")
            await pilot.press("j")
            assert " two " in marked(app)
            await pilot.press("k", "x", "y")
            await until_said(app, pilot, f"stop one ({one}) …")
            assert [what for what, _ in app.pending] == [f"stop one ({one})"]
        finally:
            other.execute("ROLLBACK")
            other.close()
        await until_said(app, pilot, f"stopped one ({one})")
        await until(app, pilot, lambda: "not answered" not in "\n".join(lines_of(app)))

    assert play(make(), script) == []
    assert bench.state(one) == "stopped"


def test_who_quits_is_told_what_became_of_a_request(bench: Bench, make: Callable[..., KeysApp]) -> None:
    one, *_ = three(bench)
    other = sqlite3.connect(bench.home / "backprop.db", isolation_level=None, check_same_thread=False)

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "next 3")
        other.execute("BEGIN EXCLUSIVE")
        await pilot.press("x", "y")
        await until_said(app, pilot, f"stop one ({one}) …")

    def let_go() -> None:
        other.execute("ROLLBACK")

    app = make()
    [said] = play(app, script, patience_s=0.0)
    assert said.startswith(f"stop one ({one}): the database has not answered; look whether it was done: ")
    threading.Timer(0.1, let_go).start()
    assert app.close(20.0) == [f"stopped one ({one})"]
    other.close()
    assert bench.state(one) == "stopped"


def test_it_fits_any_size(make: Callable[..., KeysApp]) -> None:
    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "nothing is queued")
        for size in ((1, 1), (10, 3), (300, 90)):
            await pilot.resize_terminal(*size)
            await pilot.press("question_mark", "q")
            assert len(lines_of(app)) == size[1]
        await until_said(app, pilot, "nothing is queued")

    play(make(), script)


def test_a_database_that_is_not_there_yet_goes_or_is_replaced(
    bench: Bench, make: Callable[..., KeysApp], tmp_path: Path
) -> None:
    database, copy = bench.home / "backprop.db", tmp_path / "copy.db"

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "nothing is queued")
        three(bench)
        await until_said(app, pilot, "next 3")
        shutil.copy(database, copy)
        database.unlink()
        await until_said(app, pilot, "is gone; put it together again with: backprop worker")
        assert "next 3" in "\n".join(lines_of(app)), "what was known last stays"
        assert not database.exists(), "none is created"
        copy.replace(database)
        await until(app, pilot, lambda: "is gone" not in "\n".join(lines_of(app)))
        database.write_bytes(b"no database" * 1000)
        await until_said(app, pilot, "is damaged")

    play(make(), script, (200, 30))
    database.unlink()


def test_without_colours_the_chosen_run_has_a_mark(
    bench: Bench, make: Callable[..., KeysApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    three(bench)
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(app: KeysApp, pilot: Pilot[Any]) -> None:
        await until_said(app, pilot, "next 3")
        await pilot.press("j")
        assert marked(app).startswith("> two")
        assert lines_of(app)[-1].startswith("j k choose  l log")
        assert "".join(lines_of(app)).isascii()

    play(make(colour=False, glyphs=ASCII), script, (80, 24))


def test_a_log_shows_the_last_state_of_a_progress_bar(bench: Bench) -> None:
    home = layout.Home(bench.home)
    folder = home.segment_folder("r1", 1)
    folder.mkdir(parents=True)
    log = folder / "log"
    log.write_bytes(b"1/9\r2/9\r3/9\nnext\n\x1b]0;title\x07\x1b[31mred\x1b[0m\n4/9\r5/9\r")
    tail = LogTail(home, "r1", 1)
    lines, rest = tail.read()
    assert lines[-3:-1] == ["3/9", "next"]
    assert "\x1b]" not in lines[-1] and "\x1b[31mred" in lines[-1]
    assert rest == "5/9"
    with log.open("ab") as file:
        file.write(b"6/9\nend")
    assert tail.read() == (["6/9"], "end")
    tail.close()


def test_a_terminal_is_given_back_and_plain_has_no_keys(bench: Bench, tmp_path: Path) -> None:
    three(bench)
    with Terminal(bench, 100, "top") as terminal:
        terminal.read_until("next 3")
        terminal.press("q")
        terminal.read_until("\x1b[?1049l")
        assert terminal.process.wait(10) == 0
    # Another major version of textual counts as none.
    other = tmp_path / "other" / "textual-7.0.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: textual\nVersion: 7.0.0\n")
    for words, hint in ((("status", "--watch"), True), (("top", "--plain"), False)):
        with Terminal(bench, 100, *words, env={"PYTHONPATH": str(other.parent)}) as terminal:
            terminal.read_until("next 3")
            terminal.press("\x03")
            terminal.read_until("\x1b[?1049l")
            assert ("pip install 'backprop-scheduler[tui]' gives keys" in terminal.shown()) == hint
            assert terminal.process.wait(10) == 0
