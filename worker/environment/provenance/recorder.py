"""Notes what a run is queued with, beside the command that queues it.

A forked child does it: it begins at once, without the start of an interpreter, and holds nobody up. It looks at the
code as soon as the command knows where that is, and writes the note once the run is queued. The command waits for it a
moment, so that what is edited right after is not taken for what was queued. Where that is not enough, the child goes on
alone. Where the command is refused, or dies, the child hears that its pipe is closed, and has written nothing.

The fork is early, before the command holds a lock or a database: a child that inherits a lock keeps it. What it
inherits all the same, it closes first.
"""

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import RunSpec
from backprop.worker.environment.provenance import notes
from backprop.worker.environment.provenance.notes import Kind

if TYPE_CHECKING:
    from backprop.worker.environment.provenance.code_state import CodeState

PATIENCE_S: Final = 0.02
"""How long the command waits for the note."""
MOST_S: Final = 60
"""After so long the child gives up."""
MOST_ORDER_BYTES: Final = 1 << 20
MOST_KINDS: Final = 20
"""Of runs that are queued together and differ in script or Python. The others have no note."""
ENVIRONMENT: Final = (
    *("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE"),
    "UV_PROJECT_ENVIRONMENT",
)
"""The variables that say which Python and which packages a run has."""


class _Child:
    """The child, as the command knows it. `orders`: where it is told; `end`: closed by it when it is done."""

    def __init__(self, pid: int, orders: int, end: int) -> None:
        self.pid, self._orders, self._end = pid, orders, end

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give an order, without waiting; raise OSError where there is no room for it."""
        text = json.dumps(order).encode("ascii") + b"\n"
        if os.write(self._orders, text) != len(text):
            raise BlockingIOError

    def finish(self, patience_s: float) -> None:
        """Give no more orders, and wait a moment for the end."""
        import select

        os.close(self._orders)
        ready = select.poll()
        ready.register(self._end, 0)
        ready.poll(patience_s * 1000)
        os.close(self._end)


_current: list[_Child] = []


def begin(home: Home) -> None:
    """Start the child. Raises nothing: where there is no process to be had, nothing is noted."""
    try:
        orders, told = os.pipe2(os.O_CLOEXEC)
        end, ends = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
    except OSError:
        return
    if pid == 0:
        _child(home, orders, ends)
    with contextlib.suppress(OSError):
        os.close(orders)
        os.close(ends)
        os.set_blocking(told, False)
        fcntl.fcntl(told, fcntl.F_SETPIPE_SZ, MOST_ORDER_BYTES)
    _current[:] = [_Child(pid, told, end)]


def look(spec: RunSpec) -> None:
    """Have the child look at the code of a run that may be queued. Raises nothing."""
    if _current:
        _tell({"look": msgspec.to_builtins(notes.kind_of(spec))})


def keep(
    home: Home, folder: Path, specs: Iterable[RunSpec], environment: Mapping[str, str], *, own: bool
) -> None:
    """Note what runs were queued with that share a folder. `own`: it is that of one run, not of a batch. `environment`:
    that of the runs. Raises nothing."""
    if not _current:
        begin(home)
    kinds = list(dict.fromkeys(map(notes.kind_of, specs)))[:MOST_KINDS]
    _tell(
        {
            "folder": str(folder),
            "own": own,
            "kinds": msgspec.to_builtins(kinds),
            "environment": {name: environment[name] for name in ENVIRONMENT if name in environment},
        }
    )
    with contextlib.suppress(OSError):
        for child in _current:
            child.finish(PATIENCE_S)
    _current.clear()


def _tell(order: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        for child in _current:
            child.tell(order)


def _child(home: Home, orders: int, end: int) -> NoReturn:
    """Be the child. Nothing of the command may happen here, whatever goes wrong."""
    try:
        signal.alarm(MOST_S)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.setsid()
        _let_go(orders, end)
        with open(orders, "rb") as file:
            _obey(home, file, end)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _let_go(*kept: int) -> None:
    """Close what was inherited, but `kept`: the command's output must not seem open, nor its locks held."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names alone
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(int(name))


def _obey(home: Home, orders: Iterable[bytes], end: int) -> None:
    from backprop.worker.environment.provenance import code_state

    states: dict[tuple[Path, str | None], CodeState] = {}

    def state_of(kind: Kind) -> "CodeState":
        key = (kind.base, kind.script)
        if key not in states:
            states[key] = code_state.look(
                kind.base, Path(kind.script) if kind.script is not None else None, home.root
            )
        return states[key]

    for line in orders:
        order = json.loads(line)
        if "look" in order:
            state_of(msgspec.convert(order["look"], Kind))
            continue
        # By its own name: the folder may be renamed, and another take its place.
        os.chdir(order["folder"])
        kinds = msgspec.convert(order["kinds"], list[Kind])
        for number, kind in enumerate(kinds, 1):
            note, patch = notes.make(kind, state_of(kind), order["environment"], home)
            notes.write(
                Path(), notes.name_of(0) if order["own"] else f"provenance-{number}.json", note, patch
            )
        os.close(end)
        # Only now: nobody waits for the disk.
        for path in [*Path().glob("provenance*.json"), *Path().glob("code-*.patch")]:
            _sync(path)
        _sync(Path())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(handle)
    os.close(handle)
