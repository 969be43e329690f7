"""Fixtures shared by all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A home and a project folder of its own; ends by asserting that no process of it is left."""
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        made.close()
