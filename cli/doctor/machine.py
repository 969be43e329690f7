"""What does Backprop stand on here: Python, settings, GPUs, signals, /proc, limits?"""

import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backprop.cli.doctor.finding import Finding, bad, note, ok, some
from backprop.scheduler.config.settings import DEFAULTS, Settings, load

FEW_DESCRIPTORS: Final = 256
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_python(cwd: Path | None, settings: Settings) -> Finding:
    """What runs us, and what would run a script. Raises BadCommand."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from backprop.cli.submit.submission import python_of_shell

    try:
        ours = f"backprop-scheduler {version('backprop-scheduler')}"
    except PackageNotFoundError:
        ours = "backprop-scheduler is not installed as a package"
    told = f"{platform.python_version()}, {ours}; scripts queued from here run under"
    if cwd is None:
        return bad("python", "the current directory is gone", "cd to one that exists")
    return ok("python", f"{told} {python_of_shell(settings.python, cwd)}")


def check_settings(cwd: Path | None, home: Path, config: Path | None) -> tuple[Finding, Settings]:
    """The settings that apply here; the defaults where a file is refused. Raises nothing that is expected."""
    from backprop.scheduler.errors import BadConfig

    try:
        effective = load(cwd or Path("/"), home, config, {})
    except BadConfig as error:
        return bad("settings", str(error)), DEFAULTS
    files = {source.where for source in effective.sources.values() if source.layer in ("project", "user")}
    return ok(
        "settings", f"from {' and '.join(sorted(files))}" if files else "the defaults"
    ), effective.settings


def check_gpus(kind: str) -> Finding:
    """Asks the driver as a worker does: in a helper process, for 10 s at most."""
    from backprop.worker.probes.client import read_once

    reading = read_once(kind)
    lost = [f"GPU {gpu.index}: {gpu.error}" for gpu in reading.gpus if gpu.error is not None]
    if reading.problem is not None:
        advice = "nvidia-smi   (what does the driver say itself?); until it answers, only --gpus 0 runs start"
        return bad("GPUs", f"none can be read: {reading.problem}", advice)
    if lost:
        advice = "the others are used; a lost one needs a reset of the GPU or a reboot"
        return bad("GPUs", f"{len(reading.gpus)}, read by {reading.source}; not used: {some(lost)}", advice)
    if not reading.gpus:
        return ok("GPUs", "none here, or none allowed: GPU rules do not apply")
    names = [gpu.name for gpu in reading.gpus]
    return ok("GPUs", f"{len(names)}, read by {reading.source}: {some(names)}")


@dataclass(frozen=True)
class Deafness:
    """The signals a process ignores, and those it blocks, of INT, TERM and HUP."""

    ignored: frozenset[signal.Signals]
    blocked: frozenset[signal.Signals]


def deafness_of(pid: int | str) -> Deafness | None:
    """From /proc/PID/status; None when it cannot be read. `pid`: or "self"."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    masks = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def inside(key: str) -> frozenset[signal.Signals]:
        mask = int(masks.get(key, "0"), 16)
        return frozenset(one for one in STOP_SIGNALS if mask >> (one - 1) & 1)

    return Deafness(inside("SigIgn"), inside("SigBlk"))


def check_signals(ours: Deafness | None, workers: Mapping[str, Deafness | None]) -> Finding:
    """Who hears Ctrl-C, TERM and HUP? A mask is inherited from whatever started the process (`&` in a script,
    nohup, a launcher). Leaders are given a clean one, so only workers can be deaf."""
    for worker, seen in workers.items():
        if seen is not None and (deaf := (seen.ignored | seen.blocked) - {signal.SIGHUP}):
            told = f"worker {worker} is deaf to {_names(deaf)}: whatever started it handed that down"
            return bad(
                "signals", told, "end it with kill -9 (its segments go on) and start it from another shell"
            )
    if ours is None:
        return note("signals", "/proc/self/status cannot be read")
    if ours.blocked:
        told = f"{_names(ours.blocked)} blocked here: a worker started from this shell would not hear it"
        return note("signals", told, "start it from another shell")
    if ours.ignored - {signal.SIGHUP}:
        told = f"{_names(ours.ignored)} ignored here, as in a background job of a script; a worker hears it again"
        return ok("signals", told)
    return ok(
        "signals", "INT and TERM are heard" + (", HUP is ignored (nohup)" if ours.ignored else ", and HUP")
    )


def check_processes() -> Finding:
    """Can our own processes be seen and told apart? (proc(5): hidepid, subset)"""
    from backprop.worker.supervisor import process_tree

    mount = next(
        (
            line.split()[3]
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[1] == "/proc"
        ),
        "",
    )
    hidden = [option for option in mount.split(",") if option.startswith(("hidepid=", "subset="))]
    try:
        seen = process_tree.boot_id() != "" and process_tree.identify(os.getpid()) is not None
    except OSError:
        seen = False
    if not seen:
        told = f"/proc does not show our own processes ({mount})"
        return bad("processes", told, "mount it without subset=pid")
    if hidden and hidden[0] not in ("hidepid=0", "hidepid=off"):
        return ok("processes", f"/proc shows our own ({hidden[0]} hides other users', which are not needed)")
    return ok("processes", "/proc can be read")


def check_descriptors() -> Finding:
    """Each live segment costs a worker about six."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_DESCRIPTORS:
        return note("descriptors", f"at most {soft} files open at once: few for many runs", "ulimit -n 1024")
    return ok("descriptors", f"at most {soft} files open at once" if soft >= 0 else "no limit on open files")


def _names(found: frozenset[signal.Signals]) -> str:
    return ", ".join(sorted(one.name.removeprefix("SIG") for one in found))
