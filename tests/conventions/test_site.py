"""The docs as a site: every page has its chapter, and the list for programs has every page."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT
from tools.docs.site import BELOW, CHAPTERS, llms


def chaptered() -> list[str]:
    return [name for names in CHAPTERS.values() for name in names]


def test_every_page_has_one_chapter() -> None:
    names = chaptered()
    assert len(names) == len(set(names))
    assert [name for name in names if not (ROOT / f"{name}.md").exists()] == []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = str(page.relative_to(ROOT).with_suffix(""))
        below = any(page.is_relative_to(ROOT / folder) for folder in BELOW.values())
        assert below or name in names or name == "docs/index", f"give {name} a chapter in tools/docs/site.py"


def test_the_list_for_programs_has_every_page_and_what_it_is_about() -> None:
    text = llms()
    assert text.startswith("# Backprop\n\n> ")
    for name in chaptered():
        assert f"]({name}.html)" in text
    about = [line for line in text.splitlines() if line.startswith("- ")]
    assert not [line for line in about if "```" in line]


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="the extra `docs` is not installed")
@pytest.mark.long
def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs.site", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "docs" / "tutorial.html").exists()
    assert (tmp_path / "site" / "llms.txt").read_text() == llms()
    page = (tmp_path / "site" / "README.html").read_text()
    assert 'src="http' not in page and "googleapis" not in page, "the pages load nothing from elsewhere"
