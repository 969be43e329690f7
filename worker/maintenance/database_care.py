"""Keeps a worker's database sound: notices that it was deleted, replaced or overwritten, repairs it, backs it up."""

import math
import time
from typing import Final

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.store import request_trim
from backprop.scheduler.store.reads import queries
from backprop.worker.context import Context
from backprop.worker.maintenance import backups_of_database, comparison, recovery

LEAST_S: Final = 30.0
"""Until the next comparison there is at least so much time anyway."""


class DatabaseCare:
    """One per worker."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._unsound: str | None = None
        self._suspect: str | None = None
        self._compare_after_s = -math.inf
        self._issued = 0

    def distrust(self, why: str) -> None:
        """Have the database repaired by the next `repair_if_unsound`."""
        self._unsound = why

    def repair_if_unsound(self) -> bool:
        """Repair it if anything is wrong that shows at once; return whether it was repaired. Raises BackpropError."""
        database = self._context.database
        if self._unsound is None and database.replaced():
            self._unsound = f"{database.home.database} was deleted or replaced"
        if self._unsound is None:
            # The numbers of segments only ever rise, even when runs are removed.
            before, self._issued = self._issued, queries.issued_serial(database)
            if self._issued < before:
                self._unsound = f"{database.home.database} was overwritten by an older copy"
        if self._unsound is None:
            return False
        self._repair(self._unsound)
        return True

    def compare(self) -> bool:
        """Repair it if it lacks what the home holds; return whether it was repaired. Raises BackpropError."""
        path = self._context.home.database
        if all(worker.id != self._context.worker for worker in queries.workers(self._context.database)):
            self._repair(f"{path} does not know this worker any more")
            return True
        suspect = self._older_than_home()
        if suspect is not None:
            self._repair(f"{path} is an older copy: {suspect}")
        return suspect is not None

    def back_up(self) -> None:
        """Back it up if that is due, and drop the requests that no copy needs then. Where no copy can be made (a full
        disk), everything else goes on."""
        context = self._context
        home, database = context.home, context.database
        try:
            if backups_of_database.back_up(home, database, context.clock.wall_s()) is not None:
                request_trim.trim(database, backups_of_database.newest_first(home))
        except (DatabaseBusy, OSError) as error:
            context.console.event("trouble", more=f"no backup could be made: {error}")

    def _older_than_home(self) -> str | None:
        """Return what it lacks, at the second look that finds so.

        At most a hundredth of the time is spent on looking, however many runs there are."""
        now_s, home = self._context.clock.monotonic_s(), self._context.home
        if now_s < self._compare_after_s:
            return None
        # Without what is spent waiting for the database's lock.
        begun_s = time.process_time()
        try:
            before, self._suspect = self._suspect, comparison.older_than_home(home, self._context.database)
        except OSError as error:
            raise DatabaseBusy(f"{home.root} cannot be compared with its database: {error}") from error
        spent_s = time.process_time() - begun_s
        self._compare_after_s = now_s + max(0.0, 100 * spent_s - LEAST_S)
        return self._suspect if before is not None else None

    def _repair(self, why: str) -> None:
        """Continue with a sound database, completed from the runs' folders; live segments notice nothing.

        Where that fails (a full disk), the next tick tries again."""
        context = self._context
        self._unsound = why
        context.console.event("repairing", more=why)
        context.database.reopen(
            lambda: recovery.open_sound(
                context.home, lambda line: context.console.event("repairing", more=line)
            )
        )
        context.register()
        self._unsound = self._suspect = None
        self._issued = 0
