"""Defines the fixtures that tests of commands share."""

from pathlib import Path

import pytest

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from tests.support.harness import Bench


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Make an empty home, in this process."""
    return layout.ensure(Home(tmp_path / "home"))


@pytest.fixture
def queued(bench: Bench) -> Bench:
    """Make a bench with one run in the queue."""
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "--run-id", "abc1")
    return bench
