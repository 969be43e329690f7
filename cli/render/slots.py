"""Says how many runs may run at once in a home, and who has decided that."""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from backprop.cli.render.json_views import clock, iso
from backprop.scheduler.config.settings import Effective
from backprop.scheduler.records import WorkerRecord
from backprop.scheduler.store import parallel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backprop.scheduler.store.connection import Database

CHANGE: Final = "change it: backprop parallel N"


class Slots(msgspec.Struct, frozen=True):
    """How many runs may run at once. `since_s`: when `backprop parallel` set it, Unix seconds; else None. `workers`:
    those alive. `setting`: where the number comes from if neither of them gives it."""

    at_most: int
    since_s: float | None
    workers: "Sequence[WorkerRecord]"
    setting: str = ""

    def sentence(self) -> str:
        """Return it with its reason."""
        return f"{parallel.words(self.at_most)}: {self.reason()}"

    def reason(self) -> str:
        """Return who has decided it."""
        if self.since_s is not None:
            return f"set by backprop parallel at {clock(self.since_s)}, until a worker is started with -p"
        if self.workers:
            own = [worker.id for worker in self.workers if worker.max_parallel == self.at_most]
            return f"what worker {own[0]} was started with"
        return f"{self.setting}; no worker is running"

    def own_words(self) -> str:
        """Return what the living workers were started with, where that differs; else nothing."""
        if self.since_s is None or not self.workers:
            return ""
        return ", ".join(
            f"worker {worker.id} was started with {worker.max_parallel}" for worker in self.workers
        )

    def view(self) -> dict[str, Any]:
        """Return JSON values, see docs/json.md."""
        by = "parallel" if self.since_s is not None else "workers" if self.workers else "settings"
        return {"at_most": self.at_most, "by": by, "since": iso(self.since_s)}


def slots_of(
    database: "Database | None", living: "Sequence[WorkerRecord]", effective: Effective | None = None
) -> Slots | None:
    """Return what holds now. `effective`: settings that a worker would start with, where none lives; None where nobody
    can tell then."""
    known = parallel.chosen(database) if database is not None else None
    if known is not None:
        return Slots(known[0], known[1], living)
    if living:
        return Slots(max(worker.max_parallel for worker in living), None, living)
    if effective is None:
        return None
    where = effective.sources["max_parallel"].where
    setting = "the default" if where == "default" else f"maxParallel in {where}"
    return Slots(effective.settings.max_parallel, None, (), setting)
