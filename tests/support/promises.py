"""Checks the promises, which hold whatever was killed and whenever, against the leaders' own books.

`tests/support/scripts/ledger.py` writes the books; the run folders and the database have what Backprop made of it.

    I1   a run never has two leaders at once, nor one segment twice
    I2   a run whose script has ended well is not started again once that is on record
    I3   every run ends
    I4   recovery kills no leader that lives
    I5   an end is believed only where there is evidence of it
    I6   the database is sound
    I7   a segment begins from a whole checkpoint, and from none older than the last one announced
    I8   a segment's running time keeps to timebox + grace, where a timebox ends it
    I9   no process is left
    I10  a worker's descriptors and memory do not grow (see test_hostile_input)
"""

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.harness import processes_with

FINAL = ("completed", "failed", "timeboxed", "stopped")
EX_TEMPFAIL = 75
LATE_S = 10.0
"""What a loaded machine may add to timebox and grace."""
GONE_WITHIN_S = 10.0
"""A supervisor whose segment has ended ends once its worker is gone, a moment after it."""
Lateness = Callable[[str, int, dict[str, Any]], float]
"""From run id, number and `exit.json` of a segment to how late it may end."""


@dataclass
class Book:
    """The contents of one run's ledger."""

    starts: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    steps: set[int] = field(default_factory=set[int])
    ends: dict[int, int] = field(default_factory=dict[int, int])
    faults: list[str] = field(default_factory=list[str])


def read_book(project: Path, run: str) -> Book:
    """Read `ledger-RUN`; whatever contradicts a promise by itself is among the faults."""
    book, announced, began = Book(), 0, 0
    path = project / f"ledger-{run}"
    for line in path.read_text().splitlines() if path.exists() else ():
        word, *rest = line.split()
        if word == "fault":
            book.faults.append(f"I1: {line}")
            continue
        segment, number = int(rest[0]), int(rest[1])
        if word == "start":
            if book.starts and segment <= book.starts[-1][0]:
                book.faults.append(f"I1: segment {segment} starts after segment {book.starts[-1][0]}")
            if number < announced:
                book.faults.append(f"I7: segment {segment} begins at {number}, {announced} was announced")
            began = segment
            book.starts.append((segment, number))
        elif segment != began:
            book.faults.append(f"I1: segment {segment} goes on after segment {began} began")
        if word == "step":
            book.steps.add(number)
        elif word == "saved":
            announced = max(announced, number)
        elif word == "end":
            book.ends[segment] = number
    return book


def faults_of_run(
    home: Path, project: Path, row: dict[str, Any], segments: list[dict[str, Any]], late_s: Lateness
) -> list[str]:
    """Return what is wrong with one run that should be over. `row`, `segments`: as the database has them."""
    run, state = row["id"], row["state"]
    book = read_book(project, run)
    faults = [*book.faults]
    if state not in FINAL:
        faults.append(f"I3: it is {state}: {row['reason']}")
    timebox_s, grace_s, ends_it = _limits(row)
    for one in segments:
        exit_path = home / "runs" / run / str(one["number"]) / "exit.json"
        record = json.loads(exit_path.read_text()) if exit_path.exists() else None
        newest = one["number"] == row["segment"]
        well = record is not None and record.get("exit_code") == 0 and record.get("asked") is None
        if well and not newest:
            faults.append(f"I2: segment {one['number']} had ended well, and {row['segment']} was started")
        if one["outcome"] == "completed" and not well:
            faults.append(f"I5: segment {one['number']} is called completed; on record: {record}")
        if one["outcome"] == "failed" and not _failed_by_itself(record):
            faults.append(f"I5: segment {one['number']} is called failed; on record: {record}")
        if one["outcome"] == "not started" and newest and state == "failed":
            faults.append(f"I5: it is failed, and segment {one['number']} never began: {row['reason']}")
        if one["ended_at_s"] is None and state in FINAL:
            faults.append(f"I3: segment {one['number']} never ended")
        if record and ends_it and record.get("running_s", 0.0) > timebox_s + grace_s:
            most_s = timebox_s + grace_s + late_s(run, one["number"], record)
            if record["running_s"] > most_s:
                faults.append(
                    f"I8: segment {one['number']} ran {record['running_s']} s, not {most_s:.1f} at most"
                )
    if state == "completed":
        if 0 not in book.ends.values():
            faults.append("I5: completed, but no script of it has ended well")
        if book.steps != set(range(1, max(book.steps, default=0) + 1)):
            faults.append("I7: steps are missing")
    return [f"run {run}: {fault}" for fault in faults]


def _failed_by_itself(record: dict[str, Any] | None) -> bool:
    """Return whether a script's own end is on record, and was not well."""
    if record is None or record.get("asked") is not None:
        return False
    return record.get("signal") is not None or record.get("exit_code") not in (None, 0)


def unfounded_ends(home: Path) -> list[str]:
    """Return the runs that are failed, timeboxed or held though nothing on record says that their scripts made them so.

    For runs that no user holds, before they are resumed: afterwards they look well.
    """
    found: list[str] = []
    for row in rows(home, "runs"):
        path = home / "runs" / row["id"] / str(row["segment"]) / "exit.json"
        record = json.loads(path.read_text()) if path.exists() else None
        founded = {
            "failed": "disappeared" in str(row["reason"]) or _failed_by_itself(record),
            "timeboxed": record is not None
            and (record.get("asked") or record.get("exit_code") == EX_TEMPFAIL),
            "held": False,
        }
        if not founded.get(row["state"], True):
            found.append(f"I5: run {row['id']} is {row['state']}: {row['reason']}; on record: {record}")
    return found


def _limits(row: dict[str, Any]) -> tuple[float, float, bool]:
    """Return a run's timebox and grace, and whether the timebox ends a segment in any case."""
    spec = json.loads(row["spec"])
    ends_it = spec.get("at_timebox") == "end" or spec.get("auto_resume") is False
    return float(spec.get("timebox_s", 600.0)), float(spec.get("grace_s", 30.0)), ends_it


def rows(home: Path, table: str, patience_s: float = 30.0) -> list[dict[str, Any]]:
    database = sqlite3.connect(home / "backprop.db", timeout=patience_s)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]
    finally:
        database.close()


def unsound(home: Path) -> list[str]:
    """Return what breaks I6."""
    database = sqlite3.connect(home / "backprop.db", timeout=30)
    try:
        found = database.execute("PRAGMA integrity_check").fetchall()
    finally:
        database.close()
    return [] if found == [("ok",)] else [f"I6: {found}"]


def faults(home: Path, project: Path, late_s: Lateness | None = None) -> list[str]:
    """Return everything that is wrong once all runs should be over. `late_s`: `LATE_S` where nobody measures it."""
    late_s = late_s or (lambda _run, _number, _record: LATE_S)
    found = unsound(home)
    segments = rows(home, "segments")
    for row in rows(home, "runs"):
        mine = sorted((one for one in segments if one["run_id"] == row["id"]), key=lambda one: one["number"])
        found += faults_of_run(home, project, row, mine, late_s)
    end_s = time.monotonic() + GONE_WITHIN_S
    while (left := processes_with(f"BACKPROP_HOME={home}")) and time.monotonic() < end_s:
        time.sleep(0.05)
    if left:
        found.append(f"I9: left alive: {left}")
    return found
