"""Puts a run back into a database that has forgotten it, or a part of it.

Verbs for `worker.maintenance.recovery`, which reads the run's folder. A run whose newest segment the database does not
know is put in as running under a worker that does not exist. The ordinary takeover then finds out from locks and files
what became of that segment, by the same rules as after any crash.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from backprop.scheduler.home.batch_file import Batch, spec_file
from backprop.scheduler.home.run_folder import OutcomeFile, SpecFile
from backprop.scheduler.home.wake_pipes import note_settled
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import KEPT
from backprop.scheduler.spec import GroupRules, NewRun
from backprop.scheduler.store import groups, keys
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Group as GroupRow
from backprop.scheduler.store.schema import Run, Segment, SuspensionRow
from backprop.scheduler.store.writes import enqueue

PUT_BACK: Final = "put back from its folder"
NOBODY: Final = "recovered"
"""The worker that owns a run found in its folder. Its lock never exists."""


class FolderSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment as its folder describes it. `ended_at_s` None: no end is on record. Times in seconds, VRAM in MiB."""

    number: int
    started_at_s: float
    ended_at_s: float | None
    running_s: float | None
    exit_code: int | None
    checkpoint_used: str | None
    gpu_uuids: tuple[str, ...]
    promised_mib: int
    suspended: "Suspended | None" = None


class Suspended(msgspec.Struct, frozen=True):
    """A segment that is frozen until its next turn, by order `number`, given at `at_s`. `kept`, `thaw_at_s`: as its
    user has asked. `vram_out_mib`: how much of its VRAM lies in RAM."""

    number: int
    kept: bool
    thaw_at_s: float | None
    at_s: float | None
    vram_out_mib: int | None = None


def put_back(
    database: Database,
    found: SpecFile,
    segments: list[FolderSegment],
    outcome: OutcomeFile | None,
    now_s: float,
    restore_events: Callable[[], None],
    exists: Callable[[], bool] = lambda: True,
    rested_after: int | None = None,
) -> bool:
    """Bring one run up to what its folder says. Returns False when the database knew as much already.

    `restore_events`: puts in what its past segments reported, in the same transaction: a crash between the two would
    leave a run that looks up to date and has no checkpoint. `exists`: whether the folder is still there, asked in the
    same transaction, as that is where runs are removed; if not, nothing is done and False returned. `rested_after`:
    the segment after which it is known to have waited, see `replay.at_rest`.
    """

    def verb() -> bool:
        known = Run.get_or_none(Run.id == found.id)
        newest = segments[-1].number if segments else 0
        final = _final(outcome, newest)
        if not _behind(known, newest, final) or not exists():
            return False
        if known is None:
            _insert([found])
        waits = newest == 0 or newest == rested_after
        _insert_segments(found.id, segments, newest, over=waits or final is not None)
        values = _values(found, segments, newest, final, now_s, waits=waits)
        Run.update(values).where(Run.id == found.id).execute()
        restore_events()
        note_settled()
        return True

    return database.write(verb)


def put_back_batch(
    database: Database, batch: Batch, removed: Callable[[], Collection[str]] = lambda: ()
) -> list[str]:
    """Bring the members that have no folder up to what their batch says. Returns the ids of those that were behind.

    `removed`: the members that were removed meanwhile. It is asked in the same transaction, where runs are removed.
    """

    def verb() -> list[str]:
        missing, ended = _behind_batch(batch)
        if missing:
            for run_id in removed():
                missing.pop(run_id, None)
        _insert([spec_file(batch.header, member) for member in batch.members if member.id in missing])
        for run_id in [*missing, *ended]:
            outcome = batch.outcomes.get(run_id)
            if outcome is not None:
                _end(run_id, outcome)
        return [*missing, *ended]

    return database.write(verb)


def behind_batch(database: Database, batch: Batch) -> list[str]:
    """Return the members that `put_back_batch` would put back."""
    missing, ended = database.read(lambda: _behind_batch(batch))
    return [*missing, *ended]


def _behind_batch(batch: Batch) -> tuple[dict[str, None], list[str]]:
    """Return the members that the database lacks, and those that have ended and still wait in it."""
    known: dict[str, tuple[str, float]] = {}
    ids = [member.id for member in batch.members]
    for at in range(0, len(ids), enqueue.ROWS_PER_STATEMENT):
        some = ids[at : at + enqueue.ROWS_PER_STATEMENT]
        rows: Any = Run.select(Run.id, Run.state, Run.queued_at_s).where(Run.id.in_(some)).tuples()
        known |= {run_id: (state, queued_at_s) for run_id, state, queued_at_s in rows}
    missing = {run_id: None for run_id in ids if run_id not in known}
    ended: list[str] = []
    for run_id, outcome in batch.outcomes.items():
        state, queued_at_s = known.get(run_id, ("", 0.0))
        # Resumed since then, and the old outcome was still there when it was read.
        if state in (State.QUEUED, State.HELD) and queued_at_s < outcome.ended_at_s:
            ended.append(run_id)
    return missing, ended


def _insert(found: list[SpecFile]) -> None:
    """Insert runs as they were queued, with what they waited for and the rules of the group they brought."""
    new = [NewRun(id=file.id, name=file.name, spec=file.spec, place=file.place) for file in found]
    enqueue.insert(
        [
            enqueue.row_of(run, file.created_at_s, file.batch, PUT_BACK) | {"key": None}
            for run, file in zip(new, found, strict=True)
        ]
    )
    keys.take_now([file.id for file in found if file.spec.key is not None])
    enqueue.insert_links(new)
    rules = {file.group.name: (file.group, file.created_at_s) for file in found if file.group is not None}
    for group, created_at_s in rules.values():
        _set_rules(group, created_at_s)


def _set_rules(group: GroupRules, given_at_s: float) -> None:
    """Set a group's rules. The last ones given count, in whatever order they are found."""
    known = GroupRow.get_or_none(GroupRow.name == group.name)
    if known is None or known.created_at_s <= given_at_s:
        groups.set_rules(group, given_at_s)
        GroupRow.update(created_at_s=given_at_s).where(GroupRow.name == group.name).execute()


def _end(run_id: str, outcome: OutcomeFile) -> None:
    ended = {"state": outcome.state, "reason": outcome.reason, "ended_at_s": outcome.ended_at_s}
    Run.update(ended).where(Run.id == run_id).execute()
    note_settled()


def is_behind(database: Database, run_id: str, newest: int, outcome: OutcomeFile | None) -> bool:
    """Return whether `put_back` would change anything. `newest`: the folder's last segment, 0 for none."""
    return database.read(lambda: _behind(Run.get_or_none(Run.id == run_id), newest, _final(outcome, newest)))


def _behind(known: Any, newest: int, final: OutcomeFile | None) -> bool:
    if known is None or known.segment < newest:
        return True
    return final is not None and known.state != final.state and not _resumed_since(known, final)


def _resumed_since(known: Any, final: OutcomeFile) -> bool:
    """Return whether the user has queued the run again, and the old outcome was still on disk when it was read."""
    return known.chain_start == final.segment and known.queued_at_s >= final.ended_at_s


def _final(outcome: OutcomeFile | None, newest: int) -> OutcomeFile | None:
    """Return the outcome, if it is the newest segment's and one that this program knows."""
    if outcome is None or outcome.segment != newest:
        return None
    return outcome if outcome.state in {state.value for state in FINAL} else None


def _values(
    found: SpecFile,
    segments: list[FolderSegment],
    newest: int,
    final: OutcomeFile | None,
    now_s: float,
    *,
    waits: bool,
) -> dict[str, object]:
    common: dict[str, object] = {
        "segment": newest,
        "started_at_s": segments[0].started_at_s if segments else None,
        "intent": None,
        "intent_why": None,
        "paused_for": None,
        "suspension": None,
        "thaw_at_s": None,
        "reason": PUT_BACK,
    }
    if final is not None:
        return common | {
            "state": final.state,
            "reason": final.reason,
            "ended_at_s": final.ended_at_s,
            "exit_code": segments[-1].exit_code if segments else None,
            "worker": None,
        }
    if waits:
        return common | {
            "state": (State.HELD if found.place.held else State.QUEUED).value,
            "queued_at_s": now_s,
            "turn_s": found.created_at_s,
            "worker": None,
            "ended_at_s": None,
        }
    live = common | {"worker": NOBODY, "ended_at_s": None}
    if (suspended := segments[-1].suspended) is None:
        return live | {"state": State.RUNNING.value}
    return live | {
        "state": State.SUSPENDED.value,
        "suspension": KEPT if suspended.kept else None,
        "thaw_at_s": suspended.thaw_at_s,
        "queued_at_s": now_s,
        "turn_s": now_s,
    }


def _insert_segments(run_id: str, segments: list[FolderSegment], newest: int, *, over: bool) -> None:
    """Insert the segments that the database lacks, and the ends of those that it takes for live.

    All but the newest have ended. `over`: so has that one. One that was claimed and never ordered, on a full disk, is
    known to the database alone.
    """
    past = (Segment.run_id == run_id) & (Segment.number < newest) & Segment.ended_at_s.is_null()
    never_ordered = past & Segment.number.not_in([segment.number for segment in segments])
    Segment.update(ended_at_s=Segment.started_at_s, outcome=SegmentOutcome.RECOVERED).where(
        never_ordered
    ).execute()
    for segment in segments:
        known = (Segment.run_id == run_id) & (Segment.number == segment.number)
        ended = over or segment.number < newest
        end: dict[str, Any] = {
            "ended_at_s": segment.ended_at_s or segment.started_at_s,
            "outcome": SegmentOutcome.RECOVERED,
            "running_s": segment.running_s,
            "exit_code": segment.exit_code,
        }
        if Segment.select().where(known).exists():
            if ended:
                Segment.update(end).where(known & Segment.ended_at_s.is_null()).execute()
            continue
        Segment.insert(
            **(end if ended else {}),
            run_id=run_id,
            number=segment.number,
            worker=NOBODY,
            started_at_s=segment.started_at_s,
            checkpoint_used=segment.checkpoint_used,
            gpu_uuids=json.dumps(segment.gpu_uuids),
            promised_mib=segment.promised_mib,
            need_source="declared",
            exclusive=False,
            log_offset=0,
            events_offset=0,
            bad_events=0,
            suspensions=segment.suspended.number - 1 if segment.suspended is not None else 0,
            vram_out_mib=segment.suspended.vram_out_mib if segment.suspended is not None else None,
        ).execute()
        if segment.suspended is not None and segment.suspended.at_s is not None:
            at_s = segment.suspended.at_s
            SuspensionRow.insert(
                run_id=run_id, segment=segment.number, ordered_at_s=at_s, left_at_s=at_s
            ).execute()
