"""Reads which runs lived beside others, and which files they wrote: for whoever has to tell their saves apart."""

import posixpath
from collections.abc import Collection, Sequence

import msgspec

from backprop.scheduler.lifecycle import FINAL
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import listed

DOUBT = "doubt"
"""The attribution of a file that the run may have written, or another one."""
RECENT_SEGMENTS = 2000
RECENT_CHECKPOINTS = 20_000
_LIVED = f"""
    SELECT run_id, started_at_s, ended_at_s FROM segments
    WHERE serial > (SELECT MAX(serial) FROM segments) - {RECENT_SEGMENTS}
    AND (started_at_s <= ? OR started_at_s > ?) AND (ended_at_s IS NULL OR ended_at_s >= ?)
"""
_WRITTEN = f"""
    SELECT c.run_id, c.path, c.mtime_ns, c.attribution = 'said', r.state IN {listed(FINAL)}
    FROM checkpoints c JOIN runs r ON r.id = c.run_id WHERE c.attribution <> '{DOUBT}'
"""
_NEEDED = f"""
    SELECT id FROM runs WHERE id <> ? AND (
        (state NOT IN {listed(FINAL)} AND (instr(spec, ?) OR instr(COALESCE(resume_pin, ''), ?)))
        OR id IN (
            SELECT run_id FROM checkpoints WHERE path = ?
            AND serial > (SELECT MAX(serial) FROM checkpoints) - {RECENT_CHECKPOINTS}
        )
    ) LIMIT 1
"""
_DOUBTED = f"SELECT path FROM checkpoints WHERE run_id = ? AND attribution = '{DOUBT}'"


class Written(msgspec.Struct, frozen=True):
    """A file that is known to be a run's own. `said`: the run announced it. `is_final`: the run is."""

    run_id: str
    path: str
    mtime_ns: int
    said: bool
    is_final: bool


def lived(
    database: Database, from_s: float, to_s: float, now_s: float
) -> list[tuple[str, float, float | None]]:
    """Return run, start and end of the segments that lived in a span of time (Unix seconds). One that seems to begin
    after now began under a clock that was set back since: when, nobody knows, so at `from_s`."""
    rows = database.rows(_LIVED, to_s, now_s, from_s)
    return [(run, began if began <= now_s else from_s, ended) for run, began, ended in rows]


def written_by(database: Database, run_ids: Collection[str]) -> list[Written]:
    """Return the files of these runs."""
    marks = ", ".join("?" * len(run_ids))
    return _written(database.rows(f"{_WRITTEN} AND c.run_id IN ({marks})", *run_ids))


def written_in(database: Database, folders: Collection[str]) -> list[Written]:
    """Return the files below these folders, of any run, among the latest."""
    recent = f"c.serial > (SELECT MAX(serial) FROM checkpoints) - {RECENT_CHECKPOINTS}"
    inside = " OR ".join("(c.path >= ? AND c.path < ?)" for _ in folders)
    bounds = [bound for folder in folders for bound in (f"{folder}/", f"{folder}0")]
    return _written(database.rows(f"{_WRITTEN} AND {recent} AND ({inside})", *bounds)) if folders else []


def in_use_elsewhere(database: Database, run_id: str, paths: Collection[str]) -> dict[str, str]:
    """Return which other run needs one of these files, or wrote it too, in words by path: an unfinished one whose
    command or directory names it, or that resumes from it."""
    found: dict[str, str] = {}
    for path in paths:
        folder, name = posixpath.split(path)
        # A bare number says nothing.
        named = f"{posixpath.basename(folder)}/{name}" if name.isdecimal() else name
        text = msgspec.json.encode(named).decode()[1:-1]
        for (other,) in database.rows(_NEEDED, run_id, text, named, path):
            found[path] = f"run {other} has to do with it"
    return found


def rival(database: Database, run_id: str, others: Sequence[str]) -> str | None:
    """Return one of `others` that wrote a file which the run wrote too, or of which nobody knows which of both wrote
    it, nor has one of them alone written into its folder since."""
    own = written_by(database, [run_id])
    doubted = _doubted(database, run_id)
    for other in others if own or doubted else ():
        theirs = written_by(database, [other])
        if {each.path for each in own} & {each.path for each in theirs}:
            return other
        here, there = ({posixpath.dirname(each.path) for each in rows} for rows in (own, theirs))
        folders = {posixpath.dirname(path) for path in doubted & _doubted(database, other)}
        if any((folder in here) is (folder in there) for folder in folders):
            return other
    return None


def _doubted(database: Database, run_id: str) -> set[str]:
    return {path for (path,) in database.rows(_DOUBTED, run_id)}


def _written(rows: Sequence[tuple[str, str, int, int, int]]) -> list[Written]:
    return [
        Written(run, path, mtime_ns, bool(said), bool(final)) for run, path, mtime_ns, said, final in rows
    ]
