"""Keeps queued runs waiting whose paths are not there, and lets them go on once they are back.

A look is remembered for a second, and what is missing is the uppermost folder that is not there: a thousand runs below
it cost one look. Those looks are made before the admission lock is taken, and nobody waits for a share that hangs.
"""

from typing import Final

from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.worker.clock import Clock
from backprop.worker.environment import presence
from backprop.worker.environment.presence import Absence
from backprop.worker.user_files import NOT_YET, UserFiles

LOOK_AGAIN_S: Final = 1.0
FORGOTTEN_S: Final = 60.0
MOST_LOOKS: Final = 256
"""Missing paths that are looked at again before a round; the others keep their last result until their turn."""


class MissingPaths:
    """What one worker knows of the paths of queued runs."""

    def __init__(self, clock: Clock, files: UserFiles) -> None:
        self._clock = clock
        self._files = files
        self._looked: dict[Absence, float] = {}
        """What is missing → when it was last looked at, the longest ago first. Monotonic seconds, as all times here."""
        self._asked: dict[Absence, float] = {}
        """→ when a run was last refused for it."""
        self._results: dict[tuple[str, str], Absence | float] = {}
        """What and path → what is missing of it, or when it was last seen."""
        self._waiting: dict[str, tuple[int, Absence]] = {}
        """Run → its segment, and what it waits for that takes more than a look to find."""

    def look_again(self) -> None:
        """Look again at what was missing. Call before the admission lock is taken: a look may take long."""
        now_s = self._clock.monotonic_s()
        due = [missing for missing, at_s in self._looked.items() if now_s - at_s >= LOOK_AGAIN_S]
        for missing in due[:MOST_LOOKS]:
            del self._looked[missing]
            if now_s - self._asked[missing] < FORGOTTEN_S and self._lasts(missing):
                self._looked[missing] = now_s
            else:
                del self._asked[missing]
        self._results = {key: known for key, known in self._results.items() if self._holds(known, now_s)}

    def forget(self) -> None:
        """Forget everything: nothing waits."""
        for memory in (self._looked, self._asked, self._results, self._waiting):
            memory.clear()

    def refusal(self, run: RunRecord) -> Decision | None:
        """Return why a run has to wait for a path; None when all is there that it is to be started with."""
        segment, absence = self._waiting.get(run.id, (run.segment, None))
        if absence is not None and segment == run.segment and absence in self._looked:
            return self._refused(absence)
        self._waiting.pop(run.id, None)
        return self.of_spec(run.spec)

    def of_spec(self, spec: RunSpec) -> Decision | None:
        """Return the same for what a run was queued with."""
        missing = presence.missing_for_start(spec, self._look)
        return self._refused(missing) if missing is not None else None

    def wait_for(self, run: RunRecord, absence: Absence) -> Decision:
        """Have a run wait until an absence is over."""
        self._looked.setdefault(absence, self._clock.monotonic_s())
        self._waiting[run.id] = (run.segment, absence)
        return self._refused(absence)

    def _look(self, what: str, path: str) -> Absence | None:
        now_s = self._clock.monotonic_s()
        known = self._results.get((what, path))
        if known is None or not self._holds(known, now_s):
            found = self._files.ask((what, path), lambda: presence.missing_part(what, path), path)
            if found is NOT_YET:
                return Absence(what, path, presence.SILENT)
            if found is not None:
                self._looked[found] = now_s
            known = self._results[what, path] = found or now_s
        return known if isinstance(known, Absence) else None

    def _lasts(self, absence: Absence) -> bool:
        return self._files.ask(absence, lambda: absence.lasts, absence.path) is not False

    def _holds(self, known: Absence | float, now_s: float) -> bool:
        return known in self._looked if isinstance(known, Absence) else now_s - known < LOOK_AGAIN_S

    def _refused(self, absence: Absence) -> Decision:
        self._asked[absence] = self._clock.monotonic_s()
        return refused(absence)


def refused(absence: Absence) -> Decision:
    """Return the decision on a run that waits for a path."""
    return Decision((Denial(Rule.PATH, None, None, absence.sentence(), path=absence.path),), ())
