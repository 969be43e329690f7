"""The document names tests that exist, and all the faults there are."""

import re

from tests.support.harness import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()
FAULTS = 42


def test_every_test_named_in_the_document_exists() -> None:
    named = re.findall(r"`([a-z_/]*test_\w+)\.(test_\w+)`", TEXT)
    assert len(named) > FAULTS
    for module, test in named:
        assert f"def {test}(" in (ROOT / "tests" / f"{module}.py").read_text(), f"{module}.{test}"


def test_every_row_has_its_test_and_every_number_its_row() -> None:
    rows = [
        line
        for line in TEXT.splitlines()
        if line.startswith("| ") and not line.startswith(("| **", "| I", "| |"))
    ]
    faults = [row for row in rows if "| fault |" not in row and not set(row) <= set("| -")]
    assert [row for row in faults if "/test_" not in row] == []
    numbers = {int(number) for row in faults for number in re.findall(r"^\| (\d+)\.", row)}
    assert numbers == set(range(1, FAULTS + 1))
