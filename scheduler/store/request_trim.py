"""Drops from `requests.jsonl` what no copy of the database would need asked again.

Whichever copy is restored, the runs' folders bring its runs up to their newest segments first. So a request is dead
once its run has gone on to a later segment, and so is all that was asked of a run before its removal. Of each
switch of the queue the last word counts. A removal itself is needed by the copies that do not know it.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home import request_log
from backprop.scheduler.home.request_log import Request, Verb
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.requests import known_number, segments_of

LEAST_BYTES: Final = 256 * 1024
"""A shorter file is left as it is."""
OF_QUEUE: Final = {Verb.DRAIN: "starts", Verb.UNDRAIN: "starts", Verb.PARALLEL: "slots"}
"""What is asked of the queue → what of it that sets."""


def trim(database: Database, copies: Sequence[Path], least_bytes: int = LEAST_BYTES) -> int:
    """Shorten the file of requests; return how many it lost. `copies`: all that the database might be restored from.

    Raises OSError; then the file is as it was.
    """
    home = database.home
    if not home.requests.exists() or home.requests.stat().st_size <= least_bytes:
        return 0
    in_all_copies = min(map(_known_in, copies), default=0)

    def verb() -> int:
        # Somebody takes a failed request back, or the database is an older copy: the file is not to be changed.
        if request_log.newest(home) != known_number():
            return 0
        requests = request_log.read(home, 0)
        needed = _needed(requests, in_all_copies)
        if len(needed) < len(requests):
            request_log.replace(home, needed)
        return len(requests) - len(needed)

    return database.write(verb)


def _needed(requests: Sequence[Request], in_all_copies: int) -> list[Request]:
    """Return what is still needed, and the newest in any case, whose number goes on. Call inside a transaction."""
    now = segments_of(list({run_id for request in requests for run_id in request.runs}))
    last_words = {OF_QUEUE[request.verb]: request.number for request in requests if request.verb in OF_QUEUE}
    removed_by = {
        run_id: request.number
        for request in requests
        if request.verb is Verb.REMOVE
        for run_id in request.runs
    }
    needed: list[Request] = []
    for request in requests:
        number = request.number
        runs = {
            run_id: segment
            for run_id, segment in request.runs.items()
            if number >= removed_by.get(run_id, 0) and now.get(run_id, segment) == segment
        }
        if request.verb is Verb.REMOVE:
            alive = number > in_all_copies
        elif request.verb in OF_QUEUE:
            alive = number == last_words[OF_QUEUE[request.verb]]
        else:
            alive = bool(runs)
            places = {run_id: place for run_id, place in request.places.items() if run_id in runs}
            request = msgspec.structs.replace(request, runs=runs, places=places)
        if alive or number == requests[-1].number:
            needed.append(request)
    return needed


def _known_in(copy: Path) -> int:
    """Return the number of the last request that a copy knows; 0 where it is older than they, or cannot be read."""
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            return int(connection.execute("SELECT MAX(number) FROM known_requests").fetchone()[0] or 0)
        finally:
            connection.close()
    return 0
