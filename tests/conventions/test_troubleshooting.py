"""The words that docs/troubleshooting.md explains are words that the program says."""

import re

from tests.support.harness import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
LEAST_WORDS = 25


def said() -> str:
    """Return the text of the program, with literals that are split over lines put together."""
    folders = ("cli", "scheduler", "worker")
    text = "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_word_that_is_explained_is_said() -> None:
    program = said()
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    assert len(rows) >= LEAST_WORDS
    for row in rows:
        for words in re.findall(r"`([^`]+)`", row.split("|")[1]):
            for part in words.split("…"):
                assert part.strip() in program, f"nothing says {part.strip()!r} (row: {words})"
