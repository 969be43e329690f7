"""Copies of the database: made once a day, and put in order by their times."""

import os
import time
from pathlib import Path

from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database
from backprop.worker.maintenance import backups_of_database as backups

DAY_S = 86400.0


def test_a_backup_of_a_clock_that_was_set_back_holds_up_no_other(database: Database) -> None:
    """It was a week ahead. That copy is not the newest, and no reason to make none for a week."""
    home = Home(database.home.root)
    ahead = home.root / "backups" / "backprop-99990101-000000.db"
    made: list[Path | None] = []
    ahead.parent.mkdir()
    ahead.write_bytes(b"")
    os.utime(ahead, (time.time() + 7 * DAY_S,) * 2)
    made.append(backups.back_up(home, database, time.time()))
    assert made[0] is not None
    assert backups.newest_first(home) == [made[0], ahead]
    assert backups.back_up(home, database, time.time()) is None, "one a day"
