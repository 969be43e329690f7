"""Keeps the queue untouched while this machine cannot start segments: nothing is claimed then.

Before a claim it has a supervisor ready, so that a lost interpreter or a lack of processes costs no segment. What fails
only after the claim opens the worker's breaker too.
"""

from backprop.scheduler.governor.model import Denial, Rule
from backprop.worker.context import Context
from backprop.worker.executor.base import NoSupervisor
from backprop.worker.executor.breaker import Breaker


class HostGate:
    """The gate of one worker. `is_starting`: a supervisor is about to be ready; nothing can start just now."""

    def __init__(self, context: Context, breaker: Breaker) -> None:
        self._executor = context.executor
        self._breaker = breaker
        self._proven = False
        self.is_starting = False

    @property
    def allows_one(self) -> bool:
        """Whether only one run may be claimed now, to see whether the machine can start runs again."""
        return self._breaker.why is not None

    def check(self) -> Denial | None:
        """Return why this machine can start nothing now, or None."""
        breaker, self.is_starting = self._breaker, False
        if breaker.tried is not None and self._executor.pids(*breaker.tried):
            breaker.succeeded()
        if breaker.why is not None and not breaker.may_try(self._executor.is_ready()):
            self._proven = False
            return self.denial()
        try:
            # Where a command could not be started, a supervisor from before that proves nothing.
            ready = self._executor.make_ready(fresh=breaker.of_command and not self._proven)
        except NoSupervisor as error:
            breaker.failed(str(error), of_supervisor=True)
            return self.denial()
        if ready:
            self._proven = breaker.of_command
            breaker.has_supervisor()
        self.is_starting = not ready
        return None

    def denial(self) -> Denial:
        """Return what keeps each run waiting while the machine cannot start any."""
        text = f"host cannot start runs; {self._breaker.why}; tried again by itself"
        return Denial(Rule.HOST, None, None, text)
