"""Defines the fixtures that tests of the store share."""

from pathlib import Path

import pytest

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from tests.support.older_copies import Past


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Make an empty home, in this process."""
    return layout.ensure(Home(tmp_path / "home"))


@pytest.fixture(params=["whole", "trimmed"])
def trims(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file of requests whole, and trimmed to what an older copy needs."""
    monkeypatch.setattr(Past, "trims", request.param == "trimmed")
