"""The pictures of the README are what the program draws of its scripted night today."""

import json
import re
import struct

from tests.support.harness import ROOT
from tools.docs import pictures

MADE = "run: python -m tools.docs.pictures"


def test_the_live_screen_is_current() -> None:
    assert (pictures.FOLDER / "live.svg").read_text() == pictures.live(), MADE


def test_the_report_was_photographed_from_the_page_of_today() -> None:
    made_of = json.loads((pictures.FOLDER / pictures.DIGESTS).read_text())
    assert made_of == {"report.png": pictures.digest(pictures.report_page())}, MADE
    head = (pictures.FOLDER / "report.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (pictures.PAGE_WIDTH, pictures.PAGE_HEIGHT)


def test_they_load_nothing_and_the_readme_shows_both() -> None:
    drawn = (pictures.FOLDER / "live.svg").read_text()
    assert not re.search(r"url\(|@import|<script|href=", drawn.replace("url(#", ""))
    assert set(re.findall(r"docs/pictures/([\w.]+)", (ROOT / "README.md").read_text())) == {
        "live.svg",
        "report.png",
    }
