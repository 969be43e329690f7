"""`backprop report` and `backprop plot` as they are called: what is refused, files that are written, the live page."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from tests.support.harness import COMMAND, Bench, wait_until
from tests.support.nights import NightPlan, write_night
from tests.support.refusals import at_home


@pytest.fixture
def night(bench: Bench) -> Bench:
    """A home in which ten hours have just passed."""
    database = open_database(layout.ensure(Home(bench.home)))
    write_night(database, NightPlan(runs=6, until_s=time.time() - 1, hours=1))
    database.close()
    bench.environment |= {"COLUMNS": "80", "TZ": "UTC"}
    return bench


def one_line(done: "subprocess.CompletedProcess[str]", code: int, *parts: str) -> None:
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(part in done.stderr for part in parts), done.stderr


def test_a_report_is_text_json_or_a_page(night: Bench) -> None:
    text = night.backprop("report", "--since", "1h")
    assert text.returncode == 0 and text.stderr == ""
    assert "Where" not in text.stdout and "Best 5 by loss" in text.stdout and "\x1b" not in text.stdout
    told = json.loads(night.backprop("report", "--since", "1h", "--json").stdout)
    assert told["wall_s"] == 3600 and sum(told["units"][0]["seconds"].values()) == 3600
    assert night.backprop("report", "--html", "night.html").returncode == 0
    assert (night.project / "night.html").read_text().startswith("<!doctype html>")
    assert night.backprop("report", "--html", "-", "--group", "lr-sweep").stdout.endswith("</html>\n")


def test_a_rehearsal_shows_and_writes_nothing(night: Bench) -> None:
    before = at_home(night)
    for words in (("--dry-run", "report"), ("report", "--dry-run")):
        assert "Best 5 by loss" in night.backprop(*words, "--since", "1h").stdout
        page = night.backprop(*words, "--html", "night.html", "--open", "--every", "5")
        assert page.stdout.startswith("would write night.html: "), page
        assert (page.returncode, page.stderr) == (0, "")
    assert not (night.project / "night.html").exists()
    one_line(
        night.backprop("report", "--dry-run", "--html", "none/night.html"), 6, "No such file or directory"
    )
    for words in (("export", "-o", "runs.csv"), ("export", "--tensorboard", "tb")):
        done = night.backprop("--dry-run", *words)
        assert done.stdout.startswith("would write "), done
        assert not (night.project / words[-1]).exists()
    assert at_home(night) == before, "the next --since last does not begin here"


def test_since_last_begins_at_the_report_before(night: Bench) -> None:
    before_s = time.time()
    assert night.backprop("report", "--since", "30m", "--json").returncode == 0
    told = json.loads(night.backprop("report", "--since", "last", "--json").stdout)
    assert told["wall_s"] <= time.time() - before_s + 1
    (night.home / "last-report").write_text("nonsense")
    assert json.loads(night.backprop("report", "--since", "last", "--json").stdout)["wall_s"] == 36_000


def test_what_makes_no_sense_is_refused_in_one_line(night: Bench, tmp_path: Path) -> None:
    one_line(night.backprop("report", "--since", "soon"), 2, "soon is not a valid time", "last")
    one_line(night.backprop("report", "--since", "2999-01-01"), 2, "still to come")
    one_line(night.backprop("report", "--group", "<b>"), 3, "no run is in a group named <b>")
    one_line(night.backprop("report", "--open"), 2, "need --html")
    one_line(night.backprop("report", "--html", "a/b/c.html"), 6, "a/b/c.html cannot be written")
    one_line(night.backprop("report", "--html", "-", "--every", "9"), 2, "need a file")
    one_line(night.backprop("plot", "8505-1", "--metric", "speed"), 3, "no speed", "accuracy, loss")
    empty = {"BACKPROP_HOME": str(tmp_path / "nothing")}
    one_line(night.backprop("report", env=empty), 3, "nothing has been queued")


def test_a_live_page_is_rewritten_until_ctrl_c(night: Bench) -> None:
    page = night.project / "live.html"
    words = (str(COMMAND), "report", "--html", str(page), "--every", "5")
    live = subprocess.Popen(words, env=night.environment, stderr=subprocess.PIPE, text=True)
    wait_until(page.exists)
    first = page.stat().st_ino
    wait_until(lambda: page.stat().st_ino != first)
    live.send_signal(signal.SIGINT)
    _, told = live.communicate(timeout=30)
    assert (live.returncode, told.strip()) == (130, "")
    assert 'content="5"' in page.read_text()
    assert [entry.name for entry in night.project.iterdir()] == ["live.html"]


def test_the_browser_is_asked_to_open_the_page(night: Bench) -> None:
    opener = night.project / "xdg-open"
    opener.write_text('#!/bin/sh\necho "$1" > opened\n')
    opener.chmod(0o755)
    path = f"{night.project}:{night.environment['PATH']}"
    done = night.backprop("report", "--html", "a b.html", "--open", env={"PATH": path})
    assert done.returncode == 0, done.stderr
    wait_until((night.project / "opened").exists)
    wait_until(lambda: (night.project / "opened").read_text() == f"{night.project}/a b.html\n")


def test_a_plot_is_drawn_with_and_without_means(night: Bench) -> None:
    drawn = night.backprop("plot", "8505-1").stdout.splitlines()
    assert max(map(len, drawn)) <= 80 and "⠉" in "".join(drawn) and "┬" in drawn[-3]
    assert "lr0.001-s0 (8505-1)" in drawn[-1]
    plain = night.backprop("plot", "lr-sweep", "--x", "time", "--height", "6", env={"TERM": "dumb"})
    assert plain.stdout.isascii() and len(plain.stdout.splitlines()) == 6 + 2 + 6
    wide = night.backprop("plot", "8505-1", "--metric", "accuracy", env={"COLUMNS": "150"})
    assert 80 < max(map(len, wide.stdout.splitlines())) <= 150


def test_a_worker_records_what_the_report_says(bench: Bench) -> None:
    bench.script("train.py", "import time\ntime.sleep(1.5)\n")
    bench.queue("train.py")
    worker = bench.worker()
    wait_until(lambda: all(run["state"] == "completed" for run in bench.runs()))
    # A change of the reasons is noted within five seconds: the queue has become empty.
    bench.backprop("drain")
    bench.queue("train.py")
    wait_until(lambda: "drained" in _idle(bench), saw=lambda: _idle(bench))
    assert bench.end_worker(worker) == 0
    told = json.loads(bench.backprop("report", "--since", "1m", "--json").stdout)
    assert {unit["label"] for unit in told["units"]} == {"slot 1", "slot 2"}
    assert all(sum(unit["seconds"].values()) == told["wall_s"] == 60 for unit in told["units"])
    assert told["units"][0]["seconds"]["idle"] < 60
    assert told["counts"] == {"completed": 1, "queued": 1}
    assert [one["commands"] for one in told["needs"]] == [["tmux new -d 'backprop worker'"]]


def _idle(bench: Bench) -> dict[str, int]:
    told = json.loads(bench.backprop("report", "--since", "1m", "--json").stdout)
    return {rule: seconds for unit in told["units"] for rule, seconds in unit["idle_s"].items()}
