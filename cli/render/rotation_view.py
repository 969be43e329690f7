"""Shows which checkpoints of a run stay and which may go, without removing any: the rehearsal of a rotation."""

from typing import Any

from backprop.cli.render.json_views import size
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.checkpoints.rotation.choice import Judgement, Keeping
from backprop.worker.checkpoints.rotation.judging import judged, keeping_of, rotation_of


def words(keeping: Keeping) -> str:
    """Return what is kept of each series of checkpoints."""
    best = f"{keeping.metric}, {'highest' if keeping.highest else 'lowest'} first"
    return f"the newest {keeping.newest} and the best by {best}; older ones are removed"


def rotation_pairs(database: Database, run: RunRecord, newest: int | None) -> list[tuple[str, str]]:
    """Return what a run keeps, or would with `newest`; nothing for one that keeps all."""
    newest = newest or run.spec.keep_checkpoints
    return [("checkpoints", words(keeping_of(database, run, newest)))] if newest is not None else []


def rotation_lines(home: Home, database: Database, run: RunRecord, newest: int | None) -> list[str]:
    """Return which checkpoints would go, and why the others stay. Reads their files."""
    if newest is None and run.spec.keep_checkpoints is None:
        return []
    verdicts = _verdicts(home, database, run, newest)
    going = [each for each in verdicts if each.stays is None]
    total = size(sum(each.record.size_bytes for each in going))
    head = f"{len(going)} of {len(verdicts)} would be removed, {total}" if going else "none would be removed"
    return [head, *(f"  {each.stays or 'goes'}: {each.record.path}" for each in verdicts)]


def rotation_json(
    home: Home, database: Database, run: RunRecord, newest: int | None
) -> dict[str, Any] | None:
    """Return the same for `show --json`; None for a run that keeps all."""
    newest = newest or run.spec.keep_checkpoints
    if newest is None:
        return None
    keeping = keeping_of(database, run, newest)
    return {
        "newest": newest,
        "metric": keeping.metric,
        "highest": keeping.highest,
        "checkpoints": [
            {"path": each.record.path, "size_bytes": each.record.size_bytes, "stays": each.stays}
            for each in _verdicts(home, database, run, newest)
        ],
    }


def _verdicts(home: Home, database: Database, run: RunRecord, newest: int | None) -> list[Judgement]:
    rotation = rotation_of(database, run, newest)
    return judged(home, rotation) if rotation is not None else []
