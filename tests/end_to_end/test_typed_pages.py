"""Every command of the README, the tutorial and the how-tos is typed as it stands, and prints what the page shows."""

from pathlib import Path

import pytest

from tests.support.harness import ROOT, Bench
from tests.support.typed_pages import blocks, first_missing, session, shape, type_it

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    DOCS / "tutorial.md",
    DOCS / "commands.md",
    DOCS / "troubleshooting.md",
    *sorted((DOCS / "howto").glob("*.md")),
    *sorted((DOCS / "coming-from").glob("*.md")),
]
LONG = {"tutorial", "commands", "README"}
"""Pages whose commands take more than ten seconds."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [pytest.param(one, marks=[pytest.mark.long] if one.stem in LONG else []) for one in PAGES],
    ids=name_of,
)
@pytest.mark.timeout(600)
def test_each_command_prints_what_the_page_shows(bench: Bench, page: Path) -> None:
    type_it(bench, page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_of_a_page_escapes(page: Path) -> None:
    for kind, mark, text in blocks(page):
        if kind == "sh":
            assert not mark or mark in ("run", "test", "install") or mark.startswith("not run: "), (
                f"{page.name}: {mark}"
            )
        assert kind or not text.lstrip().startswith("backprop "), f"{page.name}: a block of no kind: {text}"


def test_shapes_leave_out_what_differs_from_run_to_run() -> None:
    assert shape("queued 2 runs, group digits-ed83, ids ed83-1 to ed83-2") == shape(
        "queued 2 runs, group digits-07f1, ids 07f1-1 to 07f1-2"
    )
    assert shape("10:08:06 ↻ a (1)   requeued    segment 1, 6.3 s") == shape(
        "22:59:59 ↻ a (1) requeued segment 12, 16.35 s"
    )
    assert shape("completed") != shape("failed")
    assert first_missing(["b 1"], "a\nb 2\n") is None
    assert first_missing(["b", "a"], "a\nb\n") == "a"


def test_a_session_has_its_commands_and_their_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ one \\\n> two\nout\n…\n$ three\n```\n<!-- not run: x -->\n```sh\nno\n```\n"
    )
    assert [(one.line, one.shown) for one in session(page)] == [("one \\\ntwo", ["out"]), ("three", [])]
