"""Whom the stop signal is for, who has to end within the grace, and who is held still meanwhile.

A shell or launcher above the training is stopped while the training saves. So it can't begin the next step of its
script, and can't cut the save short. It is ended once the training has ended. A wrapper that reads the output of the
training is not held: a full pipe would block the save.

Standard library only, imports nothing of Backprop.
"""

import os
import signal
from collections.abc import Iterable, Sequence

import process_tree
import trainers
from process_tree import Process

FIELDS = ("signalled", "working", "held", "readers")


class StopTarget:
    """Every argument is a list of processes, as in `trainers.Trainers`."""

    def __init__(
        self,
        signalled: Sequence[Process],
        working: Sequence[Process],
        held: Sequence[Process] = (),
        readers: Sequence[Process] = (),
    ) -> None:
        self.signalled, self.working, self.held, self.readers = signalled, working, held, readers

    def note(self) -> dict[str, object]:
        """Return the fields of `stop.json` that tell a successor what was signalled."""
        lists = (self.signalled, self.working, self.held, self.readers)
        return {
            field: [[one.pid, one.start_ticks] for one in processes]
            for field, processes in zip(FIELDS, lists, strict=True)
        }

    def hold(self) -> None:
        """Stop the wrappers, the upper ones first."""
        for process in reversed(self.held):
            process_tree.send(process, signal.SIGSTOP)

    def send(self, number: int, group: int | None) -> bool:
        """Send the stop signal once, to the process group `group` or to each process; False when nobody got it."""
        if group is not None:
            try:
                os.killpg(group, number)
            except OSError:
                return False
            return True
        sent = [process_tree.send(process, number) for process in self.signalled]
        return any(sent)

    def works(self) -> bool:
        """Return whether the training still lives."""
        return any(map(process_tree.alive, self.working))

    def reads(self) -> bool:
        """Return whether something still reads the output of the training."""
        return any(map(process_tree.alive, self.readers))

    def status(self) -> int | None:
        """Return the wait status of the training, while a held wrapper has not collected it; the worst of several."""
        statuses = [process_tree.zombie_status(process) for process in self.working]
        return max((one for one in statuses if one is not None), default=None)

    def end_held(self) -> None:
        """End the wrappers before they go on, the deepest first. One that has a trap for TERM might run on in it."""
        for process in self.held:
            caught = trainers.catches(process.pid, signal.SIGTERM) or trainers.ignores(
                process.pid, signal.SIGTERM
            )
            process_tree.send(process, signal.SIGKILL if caught else signal.SIGTERM)
            process_tree.send(process, signal.SIGCONT)


def choose(leader: Process, number: int, to: str) -> StopTarget:
    """Choose by the run's `signalTo`: "trainer", or "leader" or "group", where nothing is held."""
    found = trainers.find(leader.pid, number)
    working = _identified(found.working)
    if to != "trainer":
        return StopTarget([leader], [leader, *(one for one in working if one != leader)])
    signalled = _identified(found.signalled)
    if not signalled or not working:
        return StopTarget([leader], [leader])
    return StopTarget(signalled, working, _identified(found.held), _identified(found.readers))


def noted(note: dict[str, object]) -> StopTarget | None:
    """Return the target that a supervisor noted; None for a note of 0.1.0."""
    lists: list[list[Process]] = []
    for field in FIELDS:
        entries = note.get(field)
        if not isinstance(entries, list):
            return None
        lists.append([Process(int(pid), int(ticks)) for pid, ticks in entries])  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return StopTarget(*lists)


def _identified(pids: Iterable[int]) -> list[Process]:
    return [process for process in map(process_tree.identify, pids) if process is not None]
