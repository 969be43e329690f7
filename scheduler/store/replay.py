"""Asks again what users have asked since the copy was made that the database was restored from.

    hold, release, move, edit, stop   where the run still waits after the segment that it had then
    resume, resume --done             where it waits so, or ended so before
    stop of a live segment            where that segment lives
    suspend, unsuspend                where the run is in the segment that it had then, alive or waiting after it
    remove                            where nothing on disk says that the run is there
    drain, undrain, parallel          always
    queue                             never: the runs' files say the same

A run that has gone on since is left alone: what became of it is in its folder, and `rebuild` has put that back.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from backprop.scheduler.home import request_log
from backprop.scheduler.home.request_log import Request, Verb
from backprop.scheduler.home.run_folder import SpecFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRef
from backprop.scheduler.store import drain, keys, parallel
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.requests import known_number, set_known_number
from backprop.scheduler.store.schema import Run
from backprop.scheduler.store.writes import deletion, ordering, suspensions, user_requests

AT_REST: Final = frozenset({Verb.HOLD, Verb.RELEASE, Verb.RESUME, Verb.DONE, Verb.STOP, Verb.MOVE, Verb.EDIT})
"""Asked of a run that had no live segment, or that then waited for its next one."""
WAITING: Final = (State.QUEUED, State.HELD)


def unknown_requests(database: Database) -> list[Request]:
    """Return what was asked and the database does not know. Raises OSError."""
    return request_log.read(database.home, database.read(known_number))


def at_rest(unknown: Collection[Request]) -> dict[str, int]:
    """Return the runs that waited when a request was made of them last, with their newest segment then: its end had
    been judged."""
    found: dict[str, int] = {}
    for request in unknown:
        for run_id, segment in request.runs.items():
            if request.verb in AT_REST:
                found[run_id] = segment
            else:
                found.pop(run_id, None)
    return found


def replay(
    database: Database,
    read_spec: Callable[[str], SpecFile | None],
    is_on_disk: Callable[[RunRef], bool],
    but: Collection[str] = (),
) -> int:
    """Ask again what the database does not know; return how many requests that were. Raises OSError.

    `read_spec`: what a run's folder says. `is_on_disk`: whether a folder or a batch holds the run. `but`: ids of runs
    to leave alone.
    """

    def verb() -> int:
        unknown = request_log.read(database.home, known_number())
        removed_by = {
            run_id: request.number
            for request in unknown
            if request.verb is Verb.REMOVE
            for run_id in request.runs
        }
        for request in unknown:
            # The id of a removed run may be another's now, of whom the earlier requests were not made.
            runs = {
                run_id: segment
                for run_id, segment in request.runs.items()
                if run_id not in but and request.number >= removed_by.get(run_id, 0)
            }
            _again(request, runs, read_spec, is_on_disk)
        if unknown:
            # One may have been put back before the removed run that had its key was removed here.
            keys.take_now()
        if (newest := request_log.newest(database.home)) > known_number():
            set_known_number(newest)
        return len(unknown)

    return database.write(verb)


def _again(
    request: Request,
    runs: Mapping[str, int],
    read_spec: Callable[[str], SpecFile | None],
    is_on_disk: Callable[[RunRef], bool],
) -> None:
    rows = _rows(runs)
    still = [run_id for run_id, row in rows.items() if row.segment == runs[run_id]]
    waiting = [run_id for run_id in still if rows[run_id].state in WAITING]
    match request.verb:
        case Verb.DRAIN:
            drain.put(request.why, request.at_s)
        case Verb.UNDRAIN:
            drain.put(None, request.at_s)
        case Verb.PARALLEL:
            parallel.put(request.at_most, request.at_s)
        case Verb.HOLD:
            user_requests.hold_now(waiting, request.why)
        case Verb.RELEASE:
            user_requests.release_now(waiting)
        case Verb.STOP:
            user_requests.stop_now(waiting, request.at_s)
        case Verb.STOP_LIVE:
            for run_id in still:
                user_requests.intend_to_stop(run_id, runs[run_id])
        case Verb.MOVE:
            places = {run_id: place for run_id, place in request.places.items() if run_id in waiting}
            ordering.place_now(places)
        case Verb.EDIT:
            for run_id in waiting:
                if (found := read_spec(run_id)) is not None:
                    user_requests.edit_now(run_id, found.name, found.spec, found.place.priority)
        case Verb.RESUME:
            able = _ended_before(request, [rows[run_id] for run_id in still])
            specs = {run_id: found.spec for run_id in able if (found := read_spec(run_id)) is not None}
            user_requests.resume_now(able, specs, request.pin, request.at_s)
        case Verb.DONE:
            able = _ended_before(request, [rows[run_id] for run_id in still])
            user_requests.declare_done_now(able, request.at_s)
        case Verb.REMOVE:
            leaving = [
                row for row in rows.values() if row.state in deletion.REMOVABLE and not is_on_disk(row)
            ]
            groups = {row.group_name for row in leaving if row.group_name is not None}
            deletion.remove_now([row.id for row in leaving], groups)
        case Verb.SUSPEND:
            if request.thaw_at_s is None or request.thaw_at_s > time.time():
                suspensions.ask_now(still, request.thaw_at_s)
                suspensions.hold_off_now(waiting, request.thaw_at_s)
        case Verb.UNSUSPEND:
            suspensions.unask_now(still)
        case Verb.QUEUE | Verb.VOID:
            pass  # `rebuild` has put back what is on disk


def _ended_before(request: Request, rows: list[Any]) -> list[str]:
    """Return what had ended, or was held, when it was asked. One put back by `rebuild` waits already: it is held."""
    able = [
        row.id
        for row in rows
        if row.state in WAITING or (row.state in FINAL and row.ended_at_s <= request.at_s)
    ]
    user_requests.hold_now(able, "asked for by the user")
    return able


def _rows(runs: Mapping[str, int]) -> dict[str, Any]:
    columns = (Run.id, Run.state, Run.segment, Run.batch, Run.group_name, Run.ended_at_s)
    ids, found = list(runs), dict[str, Any]()
    for at in range(0, len(ids), deletion.IDS_PER_QUERY):
        some = ids[at : at + deletion.IDS_PER_QUERY]
        query: Any = Run.select(*columns).where(Run.id.in_(some)).namedtuples()
        found |= {row.id: row for row in query}
    return {run_id: found[run_id] for run_id in ids if run_id in found}
