"""Keeps trouble with one run from the others: it is printed, and everything else goes on."""

import traceback
from collections.abc import Callable
from typing import Final, TypeVar

from backprop.scheduler.errors import BackpropError, LostRace
from backprop.scheduler.records import RunRecord
from backprop.worker.context import Context

COMPLAIN_AGAIN_S: Final = 60.0

T = TypeVar("T")


class Isolation:
    """One per worker: remembers what it has printed of each run."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._complaints: dict[str, tuple[str, float]] = {}

    def attempt(self, run: RunRecord, action: Callable[[], T]) -> T | None:
        """Return what `action` returns; None when it fails, which concerns `run` alone. Raises DatabaseBusy."""
        try:
            return action()
        except LostRace:
            # Moved meanwhile, for example by the user's stop; the next tick reads the run as it is then.
            return None
        except BackpropError:
            raise
        except Exception as error:
            self.complain(run, error)
            return None

    def complain(self, run: RunRecord, error: Exception) -> None:
        """Print a bug's traceback on one line, but not with every tick."""
        text = "".join(traceback.format_exception(error, limit=-3)).replace("\n", " | ")
        known, printed_s = self._complaints.get(run.id, ("", 0.0))
        now_s = self._context.clock.monotonic_s()
        if known != text or now_s - printed_s > COMPLAIN_AGAIN_S:
            self._complaints[run.id] = (text, now_s)
            self._context.console.event("trouble", run, text)
