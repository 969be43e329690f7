"""Exports runs, segments and metrics as JSON, as CSV, in the npm version's format, or for TensorBoard.

The fields are those of `list --json` and `show --json`: docs/json.md.
"""

import contextlib
import csv
import errno
import importlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, cast

from backprop.cli.render.json_views import checkpoint_view, is_terminal, iso, run_view, segment_view, size
from backprop.cli.render.terminal_text import safe
from backprop.scheduler import npm_import
from backprop.scheduler.config.files import current_directory
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics, queries
from backprop.worker.maintenance.log_archive import log_of

TABLES: Final = ("runs", "segments", "metrics")
EVENT_SUFFIX: Final = ".backprop"
"""Suffix of the event files that an export writes; the next one deletes only these from the folder."""


class Exporter:
    """Reads the rows of some runs, each table as JSON has it."""

    def __init__(self, home: Home, database: Database, runs: Sequence[RunRecord]) -> None:
        self._home, self._database, self._runs = home, database, runs
        self._ids = [run.id for run in runs]

    def table(self, what: str) -> list[dict[str, Any]]:
        """Return the rows of a table. `what`: one of `TABLES`."""
        return {"runs": self.runs, "segments": self.segments, "metrics": self.metrics}[what]()

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs as `list --json` shows them, each with its newest checkpoint and metrics."""
        newest = queries.newest_checkpoints(self._database, self._ids)
        measured = metrics.latest_of_each(self._database, self._ids)
        return [
            run_view(run, last_checkpoint=newest.get(run.id)) | {"metrics": measured[run.id]}
            for run in self._runs
        ]

    def segments(self) -> list[dict[str, Any]]:
        """Return the segments of all runs, each with its run and the path of its log."""
        return [
            {"run": run_id} | segment_view(one, str(log_of(self._home.segment_folder(run_id, one.number))))
            for run_id in self._ids
            for one in queries.segments(self._database, run_id)
        ]

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints of all runs, refused ones too."""
        return [
            {"run": run_id} | checkpoint_view(one)
            for run_id in self._ids
            for one in queries.checkpoints(self._database, run_id)
        ]

    def metrics(self) -> list[dict[str, Any]]:
        """Return each value that a run reported or printed, oldest first."""
        return [
            {
                "run": one.run_id,
                "segment": one.segment,
                "at": iso(one.at_s),
                "step": one.step,
                "name": one.name,
                "value": one.value,
                "source": one.source,
            }
            for one in metrics.of_runs(self._database, self._ids)
        ]

    def npm(self) -> dict[str, Any]:
        """Return the content of `~/.backprop/experiments.json` of the npm version."""
        records: dict[str, Any] = {}
        for run in self._runs:
            saved = [one.path for one in queries.checkpoints(self._database, run.id) if one.refused is None]
            records[run.id] = npm_import.record_of(run, saved[::-1])
        return records

    def tensorboard(self, folder: Path) -> int:
        """Write the metrics of each run as scalars, one folder per run; return how many runs had any. Replaces the
        files of an earlier export.

        Raises BadCommand without tensorboardX, or when it cannot write there.
        """
        try:
            make: Any = importlib.import_module("tensorboardX").SummaryWriter
        except ImportError as error:
            raise BadCommand(
                "--tensorboard needs tensorboardX; install it: pip install 'backprop-scheduler[tensorboard]'"
            ) from error
        count = 0
        for run in self._runs:
            rows = metrics.of_runs(self._database, [run.id])
            if not rows:
                continue
            count += 1
            into = folder / f"{run.name}-{run.id}"
            try:
                into.mkdir(parents=True, exist_ok=True)
                for old in into.glob(f"events.out.tfevents.*{EVENT_SUFFIX}"):
                    old.unlink()
                with contextlib.closing(make(logdir=str(into), filename_suffix=EVENT_SUFFIX)) as writer:
                    for number, one in enumerate(rows):
                        # Without steps the order is all that is known.
                        step = number if one.step is None else one.step
                        writer.add_scalar(one.name, one.value, step, walltime=one.at_s)
            except OSError as error:
                raise BadCommand(
                    f"{into} cannot be written: {error.strerror}; choose another folder"
                ) from error
        return count


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per row, with the columns of all rows. Null is empty, a list is joined by semicolons; each field
    of an object gets a column (`metrics.loss`)."""
    flat = [dict(_flat(row)) for row in rows]
    columns = dict.fromkeys(name for row in flat for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from (
                (f"{name}.{inner}", one) for inner, one in cast("Mapping[str, object]", value).items()
            )
        elif isinstance(value, list | tuple):
            yield name, ";".join(str(one) for one in cast("Sequence[object]", value))
        else:
            yield name, value


def deliver(text: str, file: Path | None, stdout: TextIO = sys.stdout, *, dry_run: bool = False) -> None:
    """Write to a file, whole or not at all, or to stdout (`file` None or `-`), made `safe` if that is a terminal.

    A link is followed. A device or FIFO is written directly. `dry_run`: say instead which file would be written.

    Raises BadCommand when the file cannot be written.
    """
    if file is None or str(file) == "-":
        lines = text.splitlines() if is_terminal(stdout) else None
        stdout.write(text if lines is None else "".join(f"{safe(line)}\n" for line in lines))
        return
    target = Path(os.path.realpath(file if file.is_absolute() else current_directory() / file))
    whole = target.is_file() or not target.exists()
    if dry_run:
        _rehearse(target, whole)
        verb = "replace" if target.is_file() else "write"
        stdout.write(f"would {verb} {safe(str(file))}: {size(len(text.encode(errors='surrogateescape')))}\n")
        return
    draft = target.with_name(f".{target.name}.part") if whole else target
    try:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        if whole:
            draft.replace(target)
    except OSError as error:
        if whole:
            draft.unlink(missing_ok=True)
        raise BadCommand(f"{file} cannot be written: {error.strerror}; choose another file") from error


def _rehearse(target: Path, whole: bool) -> None:
    """Find out whether a file could be written. Raises BadCommand."""
    place = target.parent if whole else target
    number = 0 if place.exists() else errno.ENOENT
    number = number or (0 if os.access(place, os.W_OK) else errno.EACCES)
    if number:
        raise BadCommand(f"{target} cannot be written: {os.strerror(number)}; choose another file")


def as_json(value: object) -> str:
    """Return indented JSON."""
    return json.dumps(value, indent=2) + "\n"
