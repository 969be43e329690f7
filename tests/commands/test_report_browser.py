"""The page of a night in a real browser: wide and narrow, light and dark, without an error or a request."""

import importlib.util
import shutil
import time
from pathlib import Path

import pytest

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from tests.support.harness import Bench
from tests.support.nights import HOSTILE, NightPlan, write_night

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLANS = {
    "30": NightPlan(until_s=time.time() - 1),
    "hostile": NightPlan(runs=12, names=HOSTILE, until_s=time.time() - 1),
    "0": NightPlan(runs=0, until_s=time.time() - 1),
}
SCREENS = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.mark.long
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None,
    reason="playwright is not installed: pip install playwright",
)
@pytest.mark.parametrize("plan", PLANS)
def test_the_page_fits_the_screen_and_asks_for_nothing(bench: Bench, tmp_path: Path, plan: str) -> None:
    from playwright.sync_api import sync_playwright

    database = open_database(layout.ensure(Home(bench.home)))
    write_night(database, PLANS[plan])
    database.close()
    page = tmp_path / "night.html"
    assert bench.backprop("report", "--html", str(page)).returncode == 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for screen, (width, height) in SCREENS.items():
            for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(15, 20, 27)")):
                tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                told: list[str] = []
                asked: list[str] = []
                tab.on("console", lambda message, told=told: told.append(message.text))
                tab.on("pageerror", lambda error, told=told: told.append(str(error)))
                tab.on("request", lambda request, asked=asked: asked.append(request.url))
                tab.goto(page.as_uri())
                assert (told, asked) == ([], [page.as_uri()]), (screen, scheme)
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, (screen, scheme)
                assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == ground
                tab.close()
        browser.close()
