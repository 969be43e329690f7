"""How does a run come back into a database that has forgotten it, or some of it?

Verbs for `worker.recovery`, which reads the run's folder. A run whose newest segment the database does not know is
put in as running under a worker that does not exist: the ordinary reconciliation then finds out from locks and
files what became of that segment, by the same rules as after any crash.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from backprop.scheduler.database import Database
from backprop.scheduler.folders import OutcomeFile, SpecFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.models import Run, Segment
from backprop.scheduler.queue import new_run

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
) -> bool:
    """Bring one run up to what its folder says. False when the database knew as much already.

    `hear`: puts in what its past segments said. In the same transaction: a crash between the two would leave a run
    that looks up to date and has no checkpoint.
    """

    def verb() -> bool:
        known = Run.get_or_none(Run.id == found.id)
        newest = segments[-1].number if segments else 0
        final = _final(outcome, newest)
        if not _behind(known, newest, final):
            return False
        if known is None:
            Run.insert(new_run(found.id, found.name, found.spec, found.created_at_s)).execute()
        _insert_segments(found.id, segments, newest, final)
        Run.update(_values(segments, newest, final, now_s)).where(Run.id == found.id).execute()
        hear()
        return True

    return database.write(verb)


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
    segments: list[FoundSegment], newest: int, final: OutcomeFile | None, now_s: float
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
            "state": State.QUEUED.value,
            "queued_at_s": now_s,
            "turn_s": now_s,
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
