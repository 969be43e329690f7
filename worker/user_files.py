"""Looks at the user's files without waiting for them: each look is a thread's, and the tick goes on without its answer.

A network share that has lost its server keeps whoever touches it, for hours, in a way that no signal ends. So nothing
in a tick touches the user's folders itself. It asks for a look and gets the answer, or `NOT_YET` and asks again in its
next tick. Only the runs whose files do not answer wait. A thread that hangs is left behind: all are daemons.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Hashable
from enum import Enum
from queue import SimpleQueue
from typing import Final, Generic, Literal, TypeVar, cast

from backprop.scheduler.home.mounts import mounts
from backprop.scheduler.spec import RunSpec

PATIENCE_S: Final = 0.5
"""How long one look is waited for before the tick goes on; nearly all take less than a millisecond."""
TICK_PATIENCE_S: Final = 1.0
"""The same for all looks of one tick together."""
MOST_THREADS: Final = 64
MOST_EACH: Final = 2
"""Threads that one share may keep."""
MOUNTS_AGAIN_S: Final = 30.0
STALE_S: Final = 600.0
"""An answer that nobody has come for in this time is dropped."""
_REMOTE: Final = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "ceph",
    "lustre",
    "9p",
    "afs",
    "gluster",
    "beegfs",
    "gpfs",
    "autofs",
)

T = TypeVar("T")


class _NotYet(Enum):
    NOT_YET = "no answer yet"


NOT_YET: Final = _NotYet.NOT_YET
NotYet = Literal[_NotYet.NOT_YET]


class _Look(Generic[T]):
    """One look, until its answer is fetched. `overdue`: a tick has gone on without it."""

    def __init__(self, look: Callable[[], T], share: str | None) -> None:
        self.share = share
        self.overdue = False
        self.began_s = time.monotonic()
        self.done = threading.Event()
        self._look = look
        self._result: T | None = None
        self._error: Exception | None = None

    def make(self) -> None:
        try:
            self._result = self._look()
        except Exception as error:
            self._error = error
        self.done.set()

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


class UserFiles:
    """The looks of one worker. Its methods are for the thread of the ticks alone."""

    def __init__(self) -> None:
        self._looks: dict[Hashable, _Look[object]] = {}
        self._abandoned: list[tuple[_Look[object], Callable[[], None]]] = []
        self._idle: SimpleQueue[SimpleQueue[_Look[object]]] = SimpleQueue()
        self._threads = 0
        self._left_s = TICK_PATIENCE_S
        self._shares: tuple[str, ...] = ()
        self._mounts_s = -MOUNTS_AGAIN_S

    def begin_tick(self) -> None:
        """Begin a new tick, with its own time for waiting."""
        self._left_s = TICK_PATIENCE_S
        now_s = time.monotonic()
        for key, look in list(self._looks.items()):
            if look.done.is_set() and now_s - look.began_s > STALE_S:
                del self._looks[key]
        for look, then in [each for each in self._abandoned if each[0].done.is_set()]:
            self._abandoned.remove((look, then))
            then()

    def ask(
        self, key: Hashable, look: Callable[[], T], path: str = "", patience_s: float | None = None
    ) -> T | NotYet:
        """Return what `look` returns, or raise what it raises; NOT_YET while it has not come to an end.

        `look` is called in a thread: it touches files, and neither the database nor the console. As long as a look of
        the same `key` is under way, or its answer was not fetched, that one counts and `look` is not called. `path`: a
        path of the user's that the look leads to, so that one share does not keep many threads. `patience_s`: how long
        to wait, whatever the tick has waited already.
        """
        made = self._looks.get(key)
        if made is None:
            made = self._begin(look, self.share_of(path))
            if made is None:
                return NOT_YET
            self._looks[key] = made
        if not made.done.is_set() and not made.overdue:
            began_s = time.monotonic()
            made.done.wait(patience_s if patience_s is not None else min(PATIENCE_S, max(self._left_s, 0.0)))
            self._left_s -= time.monotonic() - began_s
        if not made.done.is_set():
            made.overdue = True
            return NOT_YET
        del self._looks[key]
        return cast("T", made.answer())

    def is_asked(self, key: Hashable) -> bool:
        """Return whether a look of this key is under way, or has an answer that was not fetched."""
        return key in self._looks

    def has_overdue(self) -> bool:
        """Return whether any look is under way that a tick has gone on without."""
        return any(not look.done.is_set() for look in self._looks.values())

    def forget(self, key: Hashable, then: Callable[[], None] = lambda: None) -> None:
        """Want no answer any more. `then`: called once nothing uses what the look was given."""
        look = self._looks.pop(key, None)
        if look is None or look.done.is_set():
            then()
        else:
            self._abandoned.append((look, then))

    def share_of(self, path: str) -> str | None:
        """Return the mount point of the network share that a path is on by its name; None for a local one."""
        now_s = time.monotonic()
        if now_s - self._mounts_s >= MOUNTS_AGAIN_S:
            self._mounts_s, self._shares = now_s, _shares()
        within = (
            share for share in self._shares if path == share or path.startswith(f"{share.rstrip('/')}/")
        )
        return max(within, key=len, default=None)

    def _begin(self, look: Callable[[], T], share: str | None) -> "_Look[object] | None":
        """Give a look to a thread; None when none is to be had now."""
        under_way = [each for each in self._looks.values() if not each.done.is_set()]
        under_way += [each for each, _ in self._abandoned if not each.done.is_set()]
        hanging = sum(each.share == share and each.overdue for each in under_way)
        if share is not None and hanging >= MOST_EACH:
            return None
        begun = cast("_Look[object]", _Look(look, share))
        if not self._idle.empty():
            self._idle.get().put(begun)
            return begun
        if self._threads >= MOST_THREADS:
            return None
        inbox: SimpleQueue[_Look[object]] = SimpleQueue()
        inbox.put(begun)
        thread = threading.Thread(target=self._work, args=(inbox,), name="user files", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._threads += 1
            return begun
        if self._threads:
            return None
        # The machine has none to give, not one: to wait here is better than to hear nothing of any run.
        begun.make()
        return begun

    def _work(self, inbox: "SimpleQueue[_Look[object]]") -> None:
        # Signals are for the thread of the ticks.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            inbox.get().make()
            self._idle.put(inbox)


def within(seconds: float, look: Callable[[], T]) -> T:
    """Return what `look` returns, or raise what it raises; TimeoutError, an OSError, when it has not ended in time.

    Where the machine has no thread to give, the look is made here, however long it takes.
    """
    made = _Look(look, None)
    try:
        threading.Thread(target=made.make, name="user files", daemon=True).start()
    except RuntimeError:
        made.make()
    if not made.done.wait(seconds):
        raise TimeoutError(f"no answer within {seconds:g} s")
    return made.answer()


def place_of(spec: RunSpec, files: UserFiles) -> str:
    """Return the path that says most about where a run's files are: one on a network share, else its directory."""
    paths = [*(spec.plan.globs if spec.plan is not None else ()), spec.resume_from or "", spec.script or ""]
    paths = [spec.cwd, *paths, *spec.checkpoint_roots, spec.program]
    return next((share for path in paths if (share := files.share_of(path)) is not None), spec.cwd)


def _shares() -> tuple[str, ...]:
    """Return the mount points of network shares."""
    try:
        return tuple(mount.folder for mount in mounts() if mount.kind.startswith(_REMOTE))
    except OSError:
        return ()
