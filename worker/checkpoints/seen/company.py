"""Knows of the runs beside one run what the database and their folders tell, and decides with it who wrote a file."""

import posixpath
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import company, queries
from backprop.scheduler.store.reads.company import Written
from backprop.worker.checkpoints.seen.attribution import Attribution, Evidence, attribute
from backprop.worker.checkpoints.seen.evidence import SLACK_S, Seen
from backprop.worker.checkpoints.seen.places import Places, elsewhere, places_of
from backprop.worker.checkpoints.validation import CheckpointFile


class Company(msgspec.Struct, frozen=True):
    """`lived`: (run, from, to) of segments, Unix seconds, the asking run's included. `places`: of these runs.
    `written`: the files that are known to be somebody's."""

    lived: Sequence[tuple[str, float, float | None]] = ()
    places: Mapping[str, Places] = {}
    written: Sequence[Written] = ()

    def writer_of(self, path: str, file: CheckpointFile, seen: Seen, named: bool) -> Attribution:
        """Return who wrote a file. `path`: as it was found. `named`: a pattern of the run's plan names it."""
        real = str(file.path)
        lived = frozenset(
            run
            for run, began_s, ended_s in self.lived
            if began_s <= seen.to_s - SLACK_S and (ended_s is None or ended_s >= seen.from_s)
        )
        places = {run: its for run, its in self.places.items() if run in lived and run not in seen.idle}
        return attribute(
            Evidence(
                lived=lived,
                named=named,
                said=frozenset(
                    each.run_id
                    for each in self.written
                    if each.said and each.path == real and each.mtime_ns == file.mtime_ns
                ),
                opened=seen.opened & lived,
                elsewhere=elsewhere((path, real), places),
                idle=seen.idle,
                busy=seen.busy,
                owners=frozenset(
                    each.run_id for each in self.written if each.path == real and not each.is_final
                ),
            )
        )


def company_of(database: Database, from_s: float, to_s: float, folders: Collection[str]) -> Company:
    """Return the runs that lived in a span of time (Unix seconds), and who wrote in `folders`. Raises DatabaseBusy."""
    lived = company.lived(database, from_s, to_s, time.time())
    runs = list(dict.fromkeys(run for run, _, _ in lived))
    own = company.written_by(database, runs)
    places: dict[str, Places] = {}
    for run in queries.runs_by_id(database, runs):
        folder_of = frozenset(posixpath.dirname(each.path) for each in own if each.run_id == run.id)
        places[run.id] = msgspec.structs.replace(
            _places(database.home.run_folder(run.id), run.spec), folders=folder_of
        )
    return Company(lived, places, [*own, *company.written_in(database, folders)])


def _places(folder: Path, spec: RunSpec) -> Places:
    try:
        environment = run_folder.read_environment(folder)
    except OSError:
        environment = {}
    return places_of(spec, environment)
