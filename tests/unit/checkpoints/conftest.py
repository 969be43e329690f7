"""Defines the fixtures that tests of checkpoints share."""

from pathlib import Path

import pytest

from backprop.scheduler.store.connection import Database
from backprop.worker.checkpoints import scanner
from tests.support.unannounced_run import Watched, zip_bytes


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Make a whole checkpoint."""
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "ckpt.pt"
    path.write_bytes(zip_bytes())
    return path


@pytest.fixture
def watched(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Make a run whose scanner looks as often as it is asked to, and is content with a tenth of a second."""
    monkeypatch.setattr(scanner, "SCAN_EVERY_S", 0.0)
    monkeypatch.setattr(scanner, "COST_SHARE", 1e9)
    monkeypatch.setattr(scanner, "SETTLED_S", 0.1)
    return Watched(database, tmp_path)
