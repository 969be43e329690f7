"""The README's translations say no less and no more than the English one: headings, code, links, rows and words."""

import os
import re
from pathlib import Path

import pytest

from tests.support.harness import ROOT

ENGLISH = ROOT / "README.md"
FOLDER = ROOT / "docs" / "languages"
LANGUAGES = ("ja", "zh", "es", "hi", "it", "pt-BR")
"""In the order of the glossary's columns."""
FENCE = re.compile(r"^```\w*\n.*?^```$", re.M | re.S)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")


def page(language: str) -> Path:
    return FOLDER / f"README.{language}.md"


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def shapes(path: Path) -> list[str]:
    """Return the kinds of a page's blocks, in their order: headings, pictures, list items, rows, code, paragraphs."""
    found: list[str] = []
    for block in re.split(r"\n{2,}", FENCE.sub("{code}", path.read_text()).strip()):
        for line in block.splitlines():
            if mark := re.match(r"#+ |\!\[|- |\| |\{code\}", line):
                found.append(mark[0])
        if not re.match(r"#|!|-|\||\{code|<!--", block):
            found.append("paragraph")
    return found


def targets(path: Path) -> list[tuple[str, str]]:
    """Return what a page links to, from the root of the repository, pictures marked."""
    found: list[tuple[str, str]] = []
    for picture, link in LINK.findall(prose(path)):
        name, _, anchor = link.partition("#")
        place = os.path.relpath((path.parent / name).resolve(), ROOT)
        found.append((picture, f"{place}#{anchor}" if anchor else place))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_has_the_same_headings_rows_items_and_paragraphs(language: str) -> None:
    ours, english = shapes(page(language)), shapes(ENGLISH)
    assert ours[0] == english[0]
    assert ours[1] == "paragraph", "it says where the English one is"
    assert ours[2:] == english[1:]


@pytest.mark.parametrize("language", LANGUAGES)
def test_its_code_is_the_same(language: str) -> None:
    assert FENCE.findall(page(language).read_text()) == FENCE.findall(ENGLISH.read_text())


@pytest.mark.parametrize("language", LANGUAGES)
def test_its_links_lead_to_the_same_places(language: str) -> None:
    first, *rest = targets(page(language))
    assert first == ("", "README.md")
    assert sorted(rest) == sorted(targets(ENGLISH))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_typed_is_the_same(language: str) -> None:
    def typed(path: Path) -> list[str]:
        return sorted(re.findall(r"`([^`\n]+)`", " ".join(prose(path).split("\n"))))

    assert typed(page(language)) == typed(ENGLISH)


def test_each_uses_the_words_of_the_glossary() -> None:
    rows = [
        row.split("|")[1:-1]
        for row in (FOLDER / "glossary.md").read_text().splitlines()
        if row.startswith("| ")
    ]
    words = [[cell.strip() for cell in row] for row in rows][2:]
    assert len(words) >= 10
    for at, language in enumerate(LANGUAGES, 1):
        text = " ".join(prose(page(language)).split()).lower()
        missing = [row[0] for row in words if row[at].lower() not in text]
        assert missing == [], f"{language} has other words for {missing}"


def test_no_language_is_left_out() -> None:
    assert {path.name for path in FOLDER.glob("README.*.md")} == {page(one).name for one in LANGUAGES}
    index = (FOLDER / "index.md").read_text()
    assert all(page(one).name in index for one in LANGUAGES)
