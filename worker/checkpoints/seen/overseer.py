"""Watches over who writes what, for all runs of a worker: attributes what scans find, and says where runs save.

What a scan finds is another run's as often as not: live runs may share a directory.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.reads.company import DOUBT, written_in
from backprop.scheduler.store.writes.progress import SegmentReport
from backprop.worker.checkpoints.scanner import CheckpointScanner, ScannedCheckpoint
from backprop.worker.checkpoints.seen.attribution import RunIds, doubt
from backprop.worker.checkpoints.seen.baseline import Beginning, beginning_of
from backprop.worker.checkpoints.seen.company import Company, company_of
from backprop.worker.checkpoints.seen.finder import Finder
from backprop.worker.checkpoints.seen.looks_like import may_be_checkpoint
from backprop.worker.checkpoints.seen.places import saving_variables
from backprop.worker.checkpoints.seen.witness import Witness
from backprop.worker.checkpoints.validation import CheckpointFile
from backprop.worker.clock import steady_s
from backprop.worker.context import Context

RECENT_S: Final = 60.0
LATELY_S: Final = 2.0


class Attributed(msgspec.Struct, frozen=True):
    """What one look has given. `own`: what is to be recorded of a scan. `copied`: announced, and of a file that others
    write too, so that a copy is needed. `report`: with all of it, good or refused."""

    own: Sequence[ScannedCheckpoint]
    copied: Sequence[CheckpointRecord]
    report: SegmentReport | None


class Overseer:
    """One per worker."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.witness = Witness(
            lambda run_id, number: context.executor.pids(run_id, number), context.home.root
        )
        self._began_s: dict[tuple[str, int], float] = {}
        self._doubts: dict[tuple[str, str], int] = {}

    def follow(self, live: Iterable[RunRecord]) -> None:
        """Say which runs are live, of any worker, once per tick. Raises DatabaseBusy."""
        keys = {(run.id, run.segment) for run in live}
        if not keys <= self._began_s.keys():
            _, alive = queries.live_segments(self._context.database)
            self._began_s |= {(each.run_id, each.number): each.started_at_s for each in alive}
        self._began_s = {key: began_s for key, began_s in self._began_s.items() if key in keys}
        self.witness.follow((*key, began_s) for key, began_s in self._began_s.items())

    def finder(
        self, run: RunRecord, segment: SegmentRecord, recorded: Iterable[CheckpointRecord]
    ) -> Finder | None:
        """Return what searches the folders of a live segment; None where its checkpoints are known without that."""
        if _known_to_save(recorded):
            return None
        return Finder(
            run.spec,
            partial(_environment, self._context.home.run_folder(run.id)),
            self.beginning(segment),
            self._context.home.root,
            partial(self._folders_in_use, run.id, segment.number),
        )

    def beginning(self, segment: SegmentRecord) -> Beginning:
        """Return how a segment began. Reads files of the home."""
        folder = self._context.home.segment_folder(segment.run_id, segment.number)
        return beginning_of(folder, segment.started_at_s)

    def attribute(
        self,
        run: RunRecord,
        scanner: CheckpointScanner,
        scanned: Sequence[ScannedCheckpoint],
        report: SegmentReport | None,
    ) -> Attributed:
        """Return what is to be recorded, each with how it is known to be this run's own, or why it is refused. What
        another run wrote is left out. Raises DatabaseBusy."""
        if report is None or not (scanned or report.checkpoints):
            return Attributed((), (), report)
        known = [self._announced(run, record) for record in report.checkpoints]
        own, spotted = list[ScannedCheckpoint](), list[CheckpointRecord]()
        for each, noted in zip(self._attribute(run, scanner, scanned), report.spotted, strict=True):
            if each is not None:
                own.append(each)
                spotted.append(msgspec.structs.replace(each.record, seen_step=noted.seen_step))
        shared = [
            (other, record.path, _not_alone([run.id]))
            for record, others in [*known, *((each.record, each.shared_with) for each in own)]
            for other in sorted(others)
        ]
        announced = [record for record, _ in known]
        return Attributed(
            own,
            [record for record, others in known if others],
            msgspec.structs.replace(
                report,
                checkpoints=announced,
                spotted=spotted,
                shared=shared,
                saving_s=report.saving_s + sum(each.took_s for each in own),
            ),
        )

    def is_writing(self, run: RunRecord) -> bool:
        """Return whether a process of a live segment has a file open that may become a checkpoint."""
        lately = self.witness.opened(run.id, steady_s() - LATELY_S)
        return any(may_be_checkpoint(*_name_and_folder(each.path)) for each in lately)

    def places(self, run: RunRecord) -> list[str]:
        """Return where the processes of a live segment are at work, and which folders its environment names for its
        saves. Reads files of the home."""
        environment = _environment(self._context.home.run_folder(run.id))
        named = (os.path.join(run.spec.cwd, value) for _, value in saving_variables(environment) if value)  # noqa: PTH118
        return [*self.witness.folders((run.id, run.segment)), *named]

    def _announced(self, run: RunRecord, record: CheckpointRecord) -> tuple[CheckpointRecord, RunIds]:
        """Return an announced checkpoint, refused if others that are not final wrote the same file, and these."""
        if record.refused is not None:
            return record, frozenset()
        there = written_in(self._context.database, {os.path.dirname(record.path)})  # noqa: PTH120
        others = frozenset(
            each.run_id
            for each in there
            if each.path == record.path and each.run_id != run.id and not each.is_final
        )
        return msgspec.structs.replace(record, refused=_not_alone(others) if others else None), others

    def _attribute(
        self, run: RunRecord, scanner: CheckpointScanner, scanned: Sequence[ScannedCheckpoint]
    ) -> list[ScannedCheckpoint | None]:
        if not scanned:
            return []
        context = self._context
        if _known_to_save(queries.checkpoints(context.database, run.id)):
            scanner.search_no_further()
        named = any(not each.record.observed and each.record.refused is None for each in scanned)
        company = company_of(
            context.database,
            min(each.seen.from_s for each in scanned),
            max(each.seen.to_s for each in scanned),
            {os.path.dirname(each.record.path) for each in scanned},  # noqa: PTH120
        )
        return [
            self._attributed(run, scanner, each, company) if not (each.record.observed and named) else None
            for each in scanned
        ]

    def _attributed(
        self, run: RunRecord, scanner: CheckpointScanner, scanned: ScannedCheckpoint, company: Company
    ) -> ScannedCheckpoint | None:
        record = scanned.record
        if record.refused is not None:
            return scanned
        file = CheckpointFile.of(record)
        found = company.writer_of(scanned.path, file, scanned.seen, named=not record.observed)
        if found.writer == run.id and not found.shared_with:
            own = msgspec.structs.replace(
                scanned, record=msgspec.structs.replace(record, attribution=found.how)
            )
            return scanner.without_result(own)
        if found.writer == run.id:
            why = _not_alone(found.shared_with)
            return msgspec.structs.replace(
                scanned,
                record=msgspec.structs.replace(record, attribution=found.how, refused=why),
                in_place=True,
                shared_with=found.shared_with,
            )
        if found.writer is not None or run.id not in found.suspects:
            return None
        why = doubt(found.suspects)
        key = (run.id, record.path)
        if self._doubts.get(key) == run.segment:
            return None
        self._doubts[key] = run.segment
        return msgspec.structs.replace(
            scanned, record=msgspec.structs.replace(record, refused=why, attribution=DOUBT), in_place=False
        )

    def _folders_in_use(self, run_id: str, number: int) -> list[str]:
        """Return the current directories of a segment's processes, and where they lately had a file open that may be
        a checkpoint."""
        opened = [each.path for each in self.witness.opened(run_id, steady_s() - RECENT_S)]
        saving = [path for path in opened if may_be_checkpoint(*_name_and_folder(path))]
        return [*self.witness.folders((run_id, number)), *(path.rpartition("/")[0] for path in saving)]


def _known_to_save(recorded: Iterable[CheckpointRecord]) -> bool:
    """Return whether a run announces its saves, or its plan names them: then nothing else is its checkpoint."""
    return any(each.refused is None and not each.observed for each in recorded)


def _name_and_folder(path: str) -> tuple[str, str]:
    """Return the name that a file will have once it is complete, and that of its folder."""
    folder, _, name = path.rpartition("/")
    return name.removesuffix(".tmp").removesuffix(".part").removesuffix("~"), folder.rpartition("/")[2]


def _not_alone(others: Collection[str]) -> str:
    return f"{' and '.join(sorted(others))} writes it too, so only copies that were kept of it in time count"


def _environment(folder: Path) -> Mapping[str, str]:
    try:
        return run_folder.read_environment(folder)
    except OSError:
        return {}
