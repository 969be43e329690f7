"""Scrubs the credentials of runs that have ended and whose user wants that (`secrets: scrub`)."""

from typing import Final

from backprop.scheduler.home.scrubbing import scrub_batch, scrub_run
from backprop.scheduler.lifecycle import FINAL
from backprop.scheduler.store.reads import queries
from backprop.worker.context import Context

EVERY_S: Final = 10.0
FIRST_S: Final = 30 * 86400.0
"""What ended while no worker was there is looked for so far back."""
OVERLAP_S: Final = 3600.0


class Scrubber:
    """One per worker."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next_s = 0.0
        self._since_s: float | None = None
        self._done: dict[str, int] = {}

    def step(self) -> None:
        """Scrub what has ended since the last time. Call it once per tick. Raises DatabaseBusy."""
        clock, database = self._context.clock, self._context.database
        if clock.monotonic_s() < self._next_s:
            return
        self._next_s = clock.monotonic_s() + EVERY_S
        since_s = self._since_s if self._since_s is not None else clock.wall_s() - FIRST_S
        self._since_s = clock.wall_s() - OVERLAP_S
        ended = queries.to_scrub(database, since_s)
        self._done = {run_id: at for run_id, at, _ in ended if self._done.get(run_id) == at}
        for run_id, segment, batch in ended:
            if run_id not in self._done and self._scrub(run_id, batch):
                self._done[run_id] = segment

    def _scrub(self, run_id: str, batch: str | None) -> bool:
        """Return whether it is done; it is said where it is not. Within a transaction, as a resume changes the same
        files in one."""
        home, database = self._context.home, self._context.database

        def verb() -> None:
            run = queries.run_by_id(database, run_id)
            if run is None or run.state not in FINAL:
                return
            if batch is not None and not queries.batch_waits(database, batch):
                scrub_batch(home, batch)
            scrub_run(home, run_id)

        try:
            database.write(verb)
        except (OSError, ValueError) as error:
            self._context.console.event("trouble", None, f"credentials of {run_id} are still stored: {error}")
            return False
        return True
