"""Releases runs that are held for missing files, once those are back. What a user holds stays held."""

from typing import Final

from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import user_requests
from backprop.worker.checkpoints.start_point import RunRows, choose_start, rows_of
from backprop.worker.context import Context
from backprop.worker.environment.presence import trouble_with
from backprop.worker.user_files import place_of

AT_ONCE: Final = 32
"""Held runs that are looked at in one go, the oldest first; the next ones follow the next time."""


class HeldRuns:
    """Those that one worker looks at."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: RunRecord | None = None

    def release_found(self) -> int:
        """Release those whose files are back; return how many. Raises DatabaseBusy."""
        database = self._context.database
        runs = queries.held_for_something(database, AT_ONCE, self._last)
        self._last = runs[-1] if len(runs) == AT_ONCE else None
        released = 0
        for run in runs:
            if (
                self._context.may_touch(run)
                and self._is_back(run)
                and user_requests.release_found(database, run)
            ):
                released += 1
                self._context.console.event("released", run, "its files are back")
        return released

    def _is_back(self, run: RunRecord) -> bool:
        """Return whether it has somewhere to begin again; False while its files do not answer. Raises DatabaseBusy."""
        files, rows = self._context.files, rows_of(self._context.database, run)
        key = ("held", run.id, run.segment)
        return files.ask(key, lambda: self._look(run, rows), place_of(run.spec, files)) is True

    def _look(self, run: RunRecord, rows: RunRows) -> bool:
        """That takes reading, so first a look at what was gone. In a thread."""
        paths = [rule.path for rule in run.waiting if rule.path is not None]
        if paths and all(trouble_with(path) is not None for path in paths):
            return False
        try:
            start = choose_start(self._context.home, run, rows)
        except OSError:
            return False
        return start.problem is None and start.waits_for is None
