"""The page of a night in a real browser: wide and narrow, light and dark, without an error or a request, all of it text
that can be selected, in colours that can be read. $BACKPROP_SCREENSHOTS names a folder for pictures to look at."""

import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Any

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
LEAST_CONTRAST = 4.5
"""WCAG AA, for text of ordinary size."""
FAINT = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
        .map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
        .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = channels(getComputedStyle(at).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement, said = texts.currentNode.data.trim();
        if (!said || element.closest("title, style")) continue;
        const style = getComputedStyle(element);
        const ink = element instanceof SVGElement ? style.fill : style.color;
        const both = [light(channels(ink)), light(ground(element))].sort((a, b) => b - a);
        found.push([(both[0] + 0.05) / (both[1] + 0.05), said, ink]);
    }
    return found;
}"""
"""Returns [contrast, text, colour] of each text on the page."""
SELECTED = """() => {
    const range = document.createRange();
    range.selectNodeContents(document.body);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return getSelection().toString();
}"""
SCREENS = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.mark.long
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None,
    reason="playwright is not installed: pip install '.[browser]'",
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
                if folder := os.environ.get("BACKPROP_SCREENSHOTS"):
                    tab.screenshot(path=Path(folder) / f"{plan}-{screen}-{scheme}.png", full_page=True)
                assert_readable(tab, plan)
                tab.close()
        browser.close()


def assert_readable(tab: Any, plan: str) -> None:
    """Each text stands out from what is behind it, and selecting all takes the texts of the pictures along."""
    texts = tab.evaluate(FAINT)
    assert len(texts) > 5
    assert [one for one in texts if one[0] < LEAST_CONTRAST] == []
    selected = tab.evaluate(SELECTED)
    wanted = {"30": ("28 of 30 runs completed", "lr0.001-s3", "backprop resume 8505-10", "GPU 0")}.get(
        plan, ()
    )
    assert [one for one in wanted if one not in selected] == []
