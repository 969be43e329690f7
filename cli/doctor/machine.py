"""Checks what Backprop relies on here: Python, settings, GPUs, signals, /proc, limits."""

import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from backprop.cli.doctor.finding import Finding, bad, note, ok, some
from backprop.scheduler.config.settings import DEFAULTS, Settings, load
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from backprop.worker.probes.reading import Reading

FEW_DESCRIPTORS: Final = 256
LOOKS: Final = 10
LOOK_EVERY_S: Final = 0.05
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_python(cwd: Path | None, settings: Settings) -> Finding:
    """Report the Python that runs Backprop and the one that would run a script. Raises BadCommand."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from backprop.cli.submit.shell import python_of_shell

    try:
        ours = f"backprop-scheduler {version('backprop-scheduler')}"
    except PackageNotFoundError:
        ours = "backprop-scheduler is not installed as a package"
    told = f"{platform.python_version()}, {ours}; scripts queued here run with"
    if cwd is None:
        return bad("python", "the current directory no longer exists", "cd to one that exists")
    return ok("python", f"{told} {python_of_shell(settings.python, cwd)}")


def check_settings(cwd: Path | None, home: Path, config: Path | None) -> tuple[Finding, Settings]:
    """Return the settings that apply here, the defaults where a file is refused."""
    from backprop.scheduler.errors import BadConfig

    try:
        effective = load(cwd or Path("/"), home, config, {})
    except BadConfig as error:
        return bad("settings", str(error)), DEFAULTS
    files = {source.where for source in effective.sources.values() if source.layer in ("project", "user")}
    return ok(
        "settings", f"from {' and '.join(sorted(files))}" if files else "the defaults"
    ), effective.settings


def check_gpus(reading: "Reading") -> Finding:
    """Check what a reading says of the GPUs."""
    lost = [f"GPU {gpu.index}: {gpu.error}" for gpu in reading.gpus if gpu.error is not None]
    if reading.problem is not None:
        advice = "check with nvidia-smi; until the driver answers, only --gpus 0 runs start"
        return bad("GPUs", f"cannot be read: {reading.problem}", advice)
    if lost:
        advice = "the others are used; a lost GPU needs a reset or a reboot"
        return bad("GPUs", f"{len(reading.gpus)}, read by {reading.source}; not used: {some(lost)}", advice)
    if not reading.gpus:
        return ok("GPUs", "none found or none allowed; GPU rules do not apply")
    names = [gpu.name for gpu in reading.gpus]
    return ok("GPUs", f"{len(names)}, read by {reading.source}: {some(names)}")


def check_board() -> Finding:
    """Check where the homes of this machine tell each other what they have promised on which GPU."""
    from backprop.worker.executor.board import VARIABLE, NoBoard, find_board

    try:
        folder = find_board()
    except NoBoard as error:
        told = f"homes that share a GPU here may promise it twice: {error.strerror}"
        return note(
            "board", told, f"mkdir -m 1777 /run/lock as root, or set {VARIABLE} the same for all homes"
        )
    return ok("board", f"homes that share a GPU tell each other of promises in {folder}")


class SignalMasks(msgspec.Struct, frozen=True):
    """The signals of INT, TERM and HUP that a process ignores, and those that it blocks."""

    ignored: frozenset[signal.Signals]
    blocked: frozenset[signal.Signals]


def signal_masks(pid: int | str) -> SignalMasks | None:
    """Read /proc/PID/status; None when it cannot be read. `pid`: a number, or "self"."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    masks = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def inside(key: str) -> frozenset[signal.Signals]:
        mask = int(masks.get(key, "0"), 16)
        return frozenset(one for one in STOP_SIGNALS if mask >> (one - 1) & 1)

    return SignalMasks(inside("SigIgn"), inside("SigBlk"))


def lasting_signal_masks(
    pid: int, look: Callable[[int], SignalMasks | None] = signal_masks
) -> SignalMasks | None:
    """Return the masks that last: a process blocks every signal for the moment in which it starts another one."""
    masks = look(pid)
    for _ in range(LOOKS - 1):
        if masks is None or not masks.ignored | masks.blocked:
            break
        time.sleep(LOOK_EVERY_S)
        later = look(pid)
        masks = later and SignalMasks(masks.ignored & later.ignored, masks.blocked & later.blocked)
    return masks


def check_signals(ours: SignalMasks | None, workers: Mapping[str, SignalMasks | None]) -> Finding:
    """Check who receives Ctrl-C, TERM and HUP.

    A process inherits its masks from its parent (`&` in a script, nohup, a launcher). Leaders get clean ones, so only
    workers are checked.
    """
    for worker, masks in workers.items():
        if masks is not None and (unheard := (masks.ignored | masks.blocked) - {signal.SIGHUP}):
            told = f"worker {worker} ignores {_names(unheard)} (inherited from its parent)"
            return bad(
                "signals", told, "end it with kill -9 (its segments continue) and start it from another shell"
            )
    if ours is None:
        return note("signals", "/proc/self/status cannot be read")
    if ours.blocked:
        told = f"{_names(ours.blocked)} blocked here: a worker started from this shell would not receive it"
        return note("signals", told, "start it from another shell")
    if ours.ignored - {signal.SIGHUP}:
        told = f"{_names(ours.ignored)} ignored here, as in a background job of a script; a worker receives it again"
        return ok("signals", told)
    return ok(
        "signals",
        "SIGINT and SIGTERM are received, SIGHUP is ignored (nohup)"
        if ours.ignored
        else "signals are received",
    )


def check_processes() -> Finding:
    """Check that /proc shows this user's processes. (proc(5): hidepid, subset)"""
    from backprop.scheduler.home.mounts import mounts
    from backprop.worker.supervisor import process_tree

    try:
        options = [option for mount in mounts() if mount.folder == "/proc" for option in mount.options]
    except OSError:
        options = []
    hidden = [option for option in options if option.startswith(("hidepid=", "subset="))]
    try:
        readable = process_tree.boot_id() != "" and process_tree.identify(os.getpid()) is not None
    except OSError:
        readable = False
    if not readable:
        told = f"/proc does not show your own processes ({','.join(options)})"
        return bad("processes", told, "mount it without subset=pid")
    if hidden and hidden[0] not in ("hidepid=0", "hidepid=off"):
        return ok("processes", f"/proc shows your own ({hidden[0]} hides only other users')")
    return ok("processes", "/proc can be read")


def check_start(home: Home) -> Finding:
    """Start a supervisor as a worker does, and end it before it has a segment."""
    from backprop.worker.executor.base import NoSupervisor
    from backprop.worker.executor.local import LocalExecutor

    executor = LocalExecutor(home)
    try:
        while not executor.make_ready(fresh=True):
            pass  # it waits for half a second each time, and gives up by itself
    except NoSupervisor as error:
        advice = "queued runs stay queued; install Backprop again if its files are gone"
        return bad("start", f"no run can be started: {error}", advice)
    finally:
        executor.close()
    return ok("start", "runs can be started")


def check_descriptors() -> Finding:
    """Check the limit on open files. Each live segment takes about six in its worker."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_DESCRIPTORS:
        return note("descriptors", f"at most {soft} open files, few for many runs", "ulimit -n 1024")
    return ok("descriptors", f"at most {soft} open files" if soft >= 0 else "no limit on open files")


def _names(numbers: frozenset[signal.Signals]) -> str:
    return ", ".join(sorted(number.name for number in numbers))
