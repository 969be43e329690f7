"""Draws docs/pictures from a scripted night: `python -m tools.docs.pictures`.

The night is written into a database, two runs are left running, and the program's own screen and report draw it. Only
the clock, the GPU's reading and the size of the home are scripted too. So the same text comes out each time, and a test
compares it: all of the SVG, and of the PNG the page that it was taken of, by its digest.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from msgspec.structs import replace
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from backprop.cli.commands import report
from backprop.cli.live import live_screen
from backprop.cli.live.screen import draw
from backprop.cli.render.glyphs import UNICODE
from backprop.cli.render.machine_view import GpuView, Overview
from backprop.cli.report.page import page
from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import WorkerRecord
from backprop.scheduler.store import parallel
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.rows import execute
from backprop.worker.maintenance.disk_usage import DiskUse
from tests.support.nights import GPU, NightPlan, write_night

FOLDER: Final = Path(__file__).parents[2] / "docs" / "pictures"
DIGESTS: Final = "made-of.json"
NIGHT: Final = NightPlan()
MOMENT_S: Final = NIGHT.since_s + 6.3 * 3600
"""When the live screen is looked at."""
COLUMNS, ROWS = 104, 20
PAGE_WIDTH, PAGE_HEIGHT = 1080, 900
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def live() -> str:
    """Return the screen of `backprop top` four hours into a night, as SVG."""
    with _night(NIGHT, MOMENT_S) as (home, database):
        database.write(_rewind)
        parallel.choose(database, 2, MOMENT_S)
        picture = live_screen.picture(_overview(home, database), database, "")
    lines = draw(picture, COLUMNS, ROWS, UNICODE, colour=True)
    return _svg("\n".join(lines), "backprop top")


def report_page() -> str:
    """Return the report of the whole night as its HTML page."""
    with _night(NIGHT, NIGHT.until_s) as (_, database):
        shown = report.shown_of(database, (NIGHT.since_s, NIGHT.until_s), None)
        shown = replace(shown, night=replace(shown.night, disk=DiskUse()))
        return page(shown, database).replace(str(database.home.root), "/home/me/.backprop")


def digest(text: str) -> str:
    """Return what a page is known by."""
    return hashlib.sha256(text.encode()).hexdigest()


def _rewind() -> None:
    """Make the night what it was at the moment: what began later is gone, and what was going on is running."""
    for table, column in (("segments", "started_at_s"), ("metrics", "at_s"), ("samples", "at_s")):
        execute(f"DELETE FROM {table} WHERE {column} > ?", (MOMENT_S,))
    execute("UPDATE segments SET ended_at_s = NULL, outcome = NULL WHERE ended_at_s > ?", (MOMENT_S,))
    live = "(SELECT run_id FROM segments WHERE ended_at_s IS NULL)"
    last = "(SELECT value FROM metrics WHERE run_id = runs.id AND name = 'loss' ORDER BY serial DESC LIMIT 1)"
    execute(
        "UPDATE runs SET ended_at_s = NULL, fault = NULL, exit_code = NULL, state = CASE WHEN id IN"
        f" {live} THEN 'running' ELSE 'queued' END, worker = CASE WHEN id IN {live} THEN 'w1' END,"
        " segment = (SELECT COUNT(*) FROM segments WHERE run_id = runs.id),"
        " last_step = (SELECT MAX(step) FROM metrics WHERE run_id = runs.id),"
        f" last_loss = {last} WHERE ended_at_s IS NULL OR ended_at_s > ?",
        (MOMENT_S,),
    )
    execute("UPDATE runs SET step_total = 20000, turn_s = queued_at_s + segment", ())


def _overview(home: Home, database: Database) -> Overview:
    gpu = Gpu(GPU, 0, "NVIDIA RTX 4090", 24_080, 11_280, 74, None, False, 98)
    host = Host(ram_free_mib=41_800, ram_total_mib=64_000, load_1m=3.1, cores=16, disk_free_mib=900_000)
    live, (_, alive) = queries.live_runs(database), queries.live_segments(database)
    worker = WorkerRecord(id="w1", pid=4711, max_parallel=2, started_at_s=NIGHT.since_s, stopped_at_s=None)
    return Overview(
        home=home,
        snapshot=Snapshot(host, (gpu,), "nvml", None, 0.0),
        gpus=[GpuView(gpu, None, {}, 85, None, None)],
        workers=[worker],
        counts=queries.state_counts(database),
        live=live,
        alive=alive,
        warnings=[],
        left={one.run_id: live[0].spec.timebox_s - (MOMENT_S - one.started_at_s) for one in alive},
    )


@contextmanager
def _night(plan: NightPlan, now_s: float) -> Generator[tuple[Home, Database]]:
    """Write a night into a home that is gone afterwards. It is `now_s`, Unix seconds, in UTC."""
    zone = os.environ.get("TZ")
    with tempfile.TemporaryDirectory() as folder, mock.patch("time.time", return_value=now_s):
        os.environ["TZ"] = "UTC"
        time.tzset()
        database = open_database(layout.ensure(Home(Path(folder) / "home")))
        try:
            write_night(database, plan)
            yield database.home, database
        finally:
            database.close()
            del os.environ["TZ"]
            os.environ |= {} if zone is None else {"TZ": zone}
            time.tzset()


def _svg(lines: str, title: str) -> str:
    """Return lines of a terminal as a picture that loads nothing."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(lines), no_wrap=True, overflow="crop")
    return console.export_svg(
        title=title, theme=DIMMED_MONOKAI, code_format=_format(), unique_id=title.replace(" ", "-")
    )


def _format() -> str:
    """Return rich's format without the fonts that it would load from elsewhere."""
    from rich._export_format import CONSOLE_SVG_FORMAT

    before, _, rest = CONSOLE_SVG_FORMAT.partition("@font-face")
    _, _, after = rest.rpartition("@font-face")
    return (before + after.partition("}}")[2]).replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


def _photograph(text: str, path: Path) -> bool:
    """Take the top of a page as PNG; return whether there is a browser here."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(text)
        size = f"--window-size={PAGE_WIDTH},{PAGE_HEIGHT}"
        options = (
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            size,
        )
        subprocess.run(
            [browser, *options, f"--screenshot={path}", source.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
    return True


def main() -> None:
    """Write the pictures."""
    argparse.ArgumentParser(
        prog="python -m tools.docs.pictures",
        description=f"Draw the pictures in {FOLDER.name}/ from a scripted night.",
    ).parse_args()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "live.svg").write_text(live())
    text = report_page()
    if _photograph(text, FOLDER / "report.png"):
        (FOLDER / DIGESTS).write_text(json.dumps({"report.png": digest(text)}, indent=2) + "\n")
    else:
        print(f"report.png is as it was: none of {', '.join(BROWSERS)} is here")


if __name__ == "__main__":
    main()
