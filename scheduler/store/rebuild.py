"""How does a run come back into a database that has forgotten it, or some of it?

Verbs for `worker.recovery`, which reads the run's folder. A run whose newest segment the database does not know is
put in as running under a worker that does not exist: the ordinary reconciliation then finds out from locks and
files what became of that segment, by the same rules as after any crash.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from backprop.scheduler.home.batch_file import Batch, spec_file
from backprop.scheduler.home.run_folder import OutcomeFile, SpecFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.spec import GroupRules, NewRun
from backprop.scheduler.store import groups
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Group as GroupRow
from backprop.scheduler.store.schema import Run, Segment
from backprop.scheduler.store.writes import enqueue

NOBODY: Final = "recovered"
"""The worker that owns a run found in its folder. Its lock never exists."""
RECOVERED: Final = "recovered"
"""The outcome of a segment whose end the database had forgotten."""


@dataclass(frozen=True, kw_only=True)
class FoundSegment:
    """A segment as its folder tells it. `ended_at_s` None: no end is on record."""

    number: int
    started_at_s: float
    ended_at_s: float | None
    running_s: float | None
    exit_code: int | None
    checkpoint_used: str | None
    gpu_uuids: tuple[str, ...]
    promised_mib: int


def put_back(
    database: Database,
    found: SpecFile,
    segments: list[FoundSegment],
    outcome: OutcomeFile | None,
    now_s: float,
    hear: Callable[[], None],
    there: Callable[[], bool] = lambda: True,
) -> bool:
    """Bring one run up to what its folder says. False when the database knew as much already, or when it is not `there`
    any more: asked in the same transaction, as that is where runs are removed.

    `hear`: puts in what its past segments said. In the same transaction: a crash between the two would leave a run
    that looks up to date and has no checkpoint.
    """

    def verb() -> bool:
        known = Run.get_or_none(Run.id == found.id)
        newest = segments[-1].number if segments else 0
        final = _final(outcome, newest)
        if not _behind(known, newest, final) or not there():
            return False
        if known is None:
            _insert([found])
        _insert_segments(found.id, segments, newest, final)
        values = _values(found, segments, newest, final, now_s)
        Run.update(values).where(Run.id == found.id).execute()
        hear()
        return True

    return database.write(verb)


def put_back_batch(
    database: Database, batch: Batch, removed: Callable[[], Collection[str]] = lambda: ()
) -> list[str]:
    """Bring the members that have no folder up to what their batch says; the ids of those that were behind. `removed`:
    those that were meanwhile, asked in the same transaction, as that is where runs are removed."""

    def verb() -> list[str]:
        missing, ended = _behind_batch(batch)
        if missing:
            for run_id in removed():
                missing.pop(run_id, None)
        _insert([spec_file(batch.header, one) for one in batch.members if one.id in missing])
        for run_id in [*missing, *ended]:
            outcome = batch.outcomes.get(run_id)
            if outcome is not None:
                _end(run_id, outcome)
        return [*missing, *ended]

    return database.write(verb)


def behind_batch(database: Database, batch: Batch) -> list[str]:
    """The members that `put_back_batch` would put back."""
    missing, ended = database.read(lambda: _behind_batch(batch))
    return [*missing, *ended]


def _behind_batch(batch: Batch) -> tuple[dict[str, None], list[str]]:
    """(members that are not there, members that have ended and are still waiting)."""
    known: dict[str, tuple[str, float]] = {}
    ids = [one.id for one in batch.members]
    for at in range(0, len(ids), enqueue.ROWS_A_STATEMENT):
        some = ids[at : at + enqueue.ROWS_A_STATEMENT]
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
    """As they were queued, with what they waited for and what rules they brought."""
    new = [NewRun(id=one.id, name=one.name, spec=one.spec, place=one.place) for one in found]
    enqueue.insert(
        [
            enqueue.row_of(run, one.created_at_s, one.batch, "put back from its folder")
            for run, one in zip(new, found, strict=True)
        ]
    )
    enqueue.insert_links(new)
    rules = {one.group.name: (one.group, one.created_at_s) for one in found if one.group is not None}
    for group, created_at_s in rules.values():
        _set_rules(group, created_at_s)


def _set_rules(group: GroupRules, given_at_s: float) -> None:
    """The last ones given count, in whatever order they are found."""
    known = GroupRow.get_or_none(GroupRow.name == group.name)
    if known is None or known.created_at_s <= given_at_s:
        groups.set_rules(group, given_at_s)
        GroupRow.update(created_at_s=given_at_s).where(GroupRow.name == group.name).execute()


def _end(run_id: str, outcome: OutcomeFile) -> None:
    ended = {"state": outcome.state, "reason": outcome.reason, "ended_at_s": outcome.ended_at_s}
    Run.update(ended).where(Run.id == run_id).execute()


def is_behind(database: Database, run_id: str, newest: int, outcome: OutcomeFile | None) -> bool:
    """Whether `put_back` would change anything. `newest`: the folder's last segment, 0 for none."""
    return database.read(lambda: _behind(Run.get_or_none(Run.id == run_id), newest, _final(outcome, newest)))


def _behind(known: Any, newest: int, final: OutcomeFile | None) -> bool:
    if known is None or known.segment < newest:
        return True
    return final is not None and known.state != final.state and not _resumed_since(known, final)


def _resumed_since(known: Any, final: OutcomeFile) -> bool:
    """The user has queued it again, and the old outcome was still there when this was looked at."""
    return known.chain_start == final.segment and known.queued_at_s >= final.ended_at_s


def _final(outcome: OutcomeFile | None, newest: int) -> OutcomeFile | None:
    """The outcome, if it is the newest segment's and one that this program knows."""
    if outcome is None or outcome.segment != newest:
        return None
    return outcome if outcome.state in {state.value for state in FINAL} else None


def _values(
    found: SpecFile, segments: list[FoundSegment], newest: int, final: OutcomeFile | None, now_s: float
) -> dict[str, object]:
    common: dict[str, object] = {
        "segment": newest,
        "started_at_s": segments[0].started_at_s if segments else None,
        "intent": None,
        "intent_why": None,
        "paused_for": None,
        "reason": "put back from its folder",
    }
    if final is not None:
        return common | {
            "state": final.state,
            "reason": final.reason,
            "ended_at_s": final.ended_at_s,
            "worker": None,
        }
    if newest == 0:
        return common | {
            "state": (State.HELD if found.place.held else State.QUEUED).value,
            "queued_at_s": now_s,
            "turn_s": found.created_at_s,
            "worker": None,
            "ended_at_s": None,
        }
    return common | {"state": State.RUNNING.value, "worker": NOBODY, "ended_at_s": None}


def _insert_segments(
    run_id: str, segments: list[FoundSegment], newest: int, final: OutcomeFile | None
) -> None:
    """Those the database lacks, and the ends of those it takes for alive. All but the newest have ended; so has that
    one, if the run has."""
    for one in segments:
        here = (Segment.run_id == run_id) & (Segment.number == one.number)
        over = one.number < newest or final is not None
        end: dict[str, Any] = {
            "ended_at_s": one.ended_at_s or one.started_at_s,
            "outcome": RECOVERED,
            "running_s": one.running_s,
            "exit_code": one.exit_code,
        }
        if Segment.select().where(here).exists():
            if over:
                Segment.update(end).where(here & Segment.ended_at_s.is_null()).execute()
            continue
        Segment.insert(
            **(end if over else {}),
            run_id=run_id,
            number=one.number,
            worker=NOBODY,
            started_at_s=one.started_at_s,
            checkpoint_used=one.checkpoint_used,
            gpu_uuids=json.dumps(one.gpu_uuids),
            promised_mib=one.promised_mib,
            need_source="declared",
            exclusive=False,
            log_offset=0,
            events_offset=0,
            bad_events=0,
        ).execute()
