"""Says who gets the stop signal: of a queued run by its command, of a live one by looking at its processes."""

import shlex
import signal
from pathlib import Path
from typing import Any

from backprop.cli.render.terminal_text import command_text
from backprop.scheduler.config.choices import SignalTo
from backprop.scheduler.home.credentials import masked_words
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import HAS_PROCESSES
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.worker.supervisor import trainers


def planned(spec: RunSpec) -> str:
    """Return what will be signalled, as far as the command tells."""
    name, sent = Path(spec.argv[0]).name, f"SIG{spec.stop_signal}"
    if spec.signal_to == SignalTo.GROUP:
        return f"{sent} to every process in the group of {name}"
    if spec.signal_to == SignalTo.LEADER:
        return f"{sent} to {name} alone (signal-to leader)"
    if name in trainers.PASS_ON:
        return f"{sent} to what trains below {name}"
    return f"{sent} to what trains: {name}, or a process below it"


def signalled(home: Home, run: RunRecord) -> list[dict[str, Any]] | None:
    """Return the processes that a stop signal would go to now, with their commands; None where the run is not live."""
    if run.state not in HAS_PROCESSES:
        return None
    from backprop.worker.executor.local import LocalExecutor

    leader = LocalExecutor(home).leader(run.id, run.segment)
    if leader is None:
        return None
    pids = [leader.pid]
    if run.spec.signal_to == SignalTo.TRAINER:
        pids = list(trainers.find(leader.pid, int(signal.Signals[f"SIG{run.spec.stop_signal}"])).signalled)
    commands = [[word.decode(errors="replace") for word in trainers.command_line(pid)] for pid in pids]
    return [
        {"pid": pid, "command": shlex.join(masked_words(command)) or command_text(run.spec)}
        for pid, command in zip(pids, commands, strict=True)
    ]


def live(spec: RunSpec, processes: list[dict[str, Any]] | None) -> str:
    """Return what would be signalled now; what is planned where nothing lives."""
    if not processes:
        return planned(spec)
    to = "the group of " if spec.signal_to == SignalTo.GROUP else ""
    return f"SIG{spec.stop_signal} to {to}" + ", ".join(
        f"{one['pid']} ({one['command']})" for one in processes
    )
