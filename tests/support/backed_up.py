"""Makes backups of checkpoints."""

from pathlib import Path

from backprop.worker.checkpoints import backups
from backprop.worker.checkpoints.backups import Backup, BackupRefused
from tests.support.store_rows import checkpoint


def never() -> bool:
    """Return that nobody asks to stop."""
    return False


def back_up(run_folder: Path, path: Path, segment: int = 1) -> Backup | BackupRefused:
    """Try to back up the checkpoint of a segment."""
    record = checkpoint("r1", path, segment=segment)
    return backups.back_up(run_folder, record, 0, never)


def good(run_folder: Path, path: Path, segment: int = 1) -> Backup:
    """Back up the checkpoint of a segment."""
    found = back_up(run_folder, path, segment)
    assert isinstance(found, Backup), found
    return found
