"""Copies a sound database once a day, keeps the newest copies, and puts one of them back.

    backups/backprop-DATE-TIME.db   made here, the newest five kept
    backprop.db.vN.bak              made by a migration (`migrations/runner.py`), one per schema, kept

Either kind may be put back: an older schema is migrated when it is opened.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database

KEPT: Final = 5
EVERY_S: Final = 86400.0
CLOCK_GRAIN_S: Final = 2.0


def back_up(home: Home, database: Database, now_s: float) -> Path | None:
    """Copy the database, which must be sound, unless that was done within a day.

    `now_s`: Unix seconds. Returns the copy; None when a recent one exists, or when another worker is making one or
    repairing. Raises DatabaseBusy, OSError.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(home.locks / "recovery.lock", timeout=0, mode=0o600, fallback_to_soft=False):
            return _back_up(home, database, now_s)
    except Timeout:
        return None


def _back_up(home: Home, database: Database, now_s: float) -> Path | None:
    folder = home.root / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    kept = _oldest_first(folder.glob("backprop-*.db"), now_s)
    if kept and 0 <= now_s - kept[-1].stat().st_mtime < EVERY_S:
        return None
    target = folder / time.strftime("backprop-%Y%m%d-%H%M%S.db", time.localtime(now_s))
    draft = target.with_suffix(f".{os.getpid()}.part")
    try:
        draft.unlink(missing_ok=True)
        database.copy_to(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    for old in kept[: max(len(kept) + 1 - KEPT, 0)]:
        old.unlink(missing_ok=True)
    return target


def newest_first(home: Home) -> list[Path]:
    """Return all backups, those made before a migration included."""
    backups = [*(home.root / "backups").glob("backprop-*.db"), *home.root.glob("backprop.db.v*.bak")]
    return _oldest_first(backups, time.time())[::-1]


def _oldest_first(backups: Iterable[Path], now_s: float) -> list[Path]:
    """Sort by their times. One that lies ahead was made by a clock that was set back since: it is the oldest, or it
    would keep the place of all that are made until then."""
    times_s = {backup: backup.stat().st_mtime for backup in backups}
    return sorted(times_s, key=lambda backup: (times_s[backup] <= now_s + CLOCK_GRAIN_S, times_s[backup]))


def restore_newest(home: Home, is_sound: Callable[[], bool]) -> Path | None:
    """Copy the newest sound backup into the database's place, where no file is. `is_sound`: checks the file there.

    Returns the backup; None when none is sound, and no database is left then. Raises OSError.
    """
    for backup in newest_first(home):
        draft = home.database.with_name("backprop.db.restoring")
        shutil.copyfile(backup, draft)
        draft.chmod(0o600)
        draft.replace(home.database)
        if is_sound():
            return backup
        home.database.unlink()
    return None
