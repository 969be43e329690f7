"""Links in the docs lead somewhere, and the design pages name files that exist."""

import re
from pathlib import Path

import pytest

from tests.support.harness import ROOT

PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(
        ROOT / name
        for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "benchmarks/README.md")
    ),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
ARCHITECTURE = ROOT / "docs" / "design" / "architecture.md"
MOST_LINES = 120


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{target.name} has no heading #{anchor}"


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "design").rglob("*.md")), ids=lambda page: str(page.relative_to(ROOT))
)
def test_design_pages_name_files_that_exist(page: Path) -> None:
    for path in re.findall(
        r"`((?:scheduler|worker|cli|sdk|migrations|tests|tools|benchmarks)/[\w/.]*)`", page.read_text()
    ):
        assert (ROOT / path).exists(), f"{path} does not exist"


def test_the_architecture_names_every_package_and_module_at_the_top() -> None:
    text = ARCHITECTURE.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    named = set(re.findall(r"`(\w+)/?`", text))
    for folder in ("scheduler", "worker", "cli"):
        there = {
            path.stem
            for path in (ROOT / folder).iterdir()
            if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        assert there - {"__init__"} <= named, f"docs/design/architecture.md leaves out some of {folder}"


def test_every_decision_is_in_the_index() -> None:
    index = ROOT / "docs" / "design" / "decisions" / "README.md"
    linked = set(LINK.findall(index.read_text()))
    assert linked == {path.name for path in index.parent.glob("*.md")} - {"README.md"}
