"""When this segment should end: at its deadline, or as soon as Backprop's stop signal has arrived.

The deadline moves where a segment is given another box while it runs. It is in a file then, which is written anew
before the old deadline has passed.
"""

import os
import time

TYPE_CHECKING = False  # typing's own constant would import typing, 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_asked = False  # the stop signal has arrived
_settled = False  # nothing more to install in this process
_noted = False  # it is on disk that the script was told to stop
_heeding = False  # it is on disk that the script asks whether to stop
_passes_s: float | None = None  # the deadline in the file as it was last read, on the monotonic clock
_boot_id: str | None = None  # of the kernel under this process, once it was read

JUMP_S = 1.0  # a smaller change of the wall clock is the drift that NTP corrects


def deadline() -> float | None:
    """End of this segment's timebox in Unix seconds; None outside Backprop or without a timebox.

    Where the wall clock was set or the machine slept, the end moves with it: what is left stays what it is. It moves
    too when the segment is given another box. Time spent paused does not count, so the real end may be later.
    """
    global _passes_s
    _passes_s = None
    left = _left_s()
    if left is None:
        return None
    told, now = _finite(os.environ.get("BACKPROP_DEADLINE", "")), time.time() + left
    return now if told is None or abs(now - told) > JUMP_S else told


def should_stop() -> bool:
    """Whether to save a checkpoint and exit now. Ask once a step; always False outside Backprop.

    True once `deadline()` has passed (after a pause that is early, which is harmless: the run goes on in
    another segment) or the stop signal has arrived. A script that asks counts as one that saves before it stops.

    The first call, inside Backprop and in the main thread, installs a handler for the stop signal (its name
    is in BACKPROP_STOP_SIGNAL, INT if unset), unless the script has installed its own, which is left alone.
    The handler records the signal, so SIGINT no longer raises KeyboardInterrupt and a blocking call goes
    on: the step can finish and the checkpoint be written. It works once: a second signal has the effect it
    had before the first call. Other threads may ask too; they install nothing. Forked children (data
    loaders) start without the handler.
    The first True is noted beside the events: exit code 0 then means "stopped in time", not "done".
    Raises nothing.
    """
    over = is_over()
    if over and not _noted:
        _note()
    return over


def is_over() -> bool:
    """`should_stop()` for a caller that may go on all the same: nothing is noted."""
    if not _settled and os.environ.get("BACKPROP_RUN_ID"):
        _install()
    if not _heeding:
        _heed()
    if _asked:
        return True
    left = _left_s()
    return left is not None and left <= 0


def _left_s() -> float | None:
    """Seconds to the end of the timebox; None for no end.

    By the monotonic clock where it can be: nobody sets that one, and like the timebox it stands still while the
    machine sleeps. It means nothing on another machine, where MPI may have taken the environment, nor for a
    BACKPROP_DEADLINE that the script or a wrapper has set itself.
    """
    told = os.environ.get("BACKPROP_DEADLINE", "")
    end = _finite(told)
    if end is None:
        return _left_by_file_s(os.environ.get("BACKPROP_DEADLINE_FILE"))
    steady, _, which = os.environ.get("BACKPROP_DEADLINE_MONOTONIC", "").partition(" ")
    steady_end = _finite(steady)
    if steady_end is not None and which == f"{_boot()} {told}":
        return steady_end - time.monotonic()
    return end - time.time()


def _left_by_file_s(path: str | None) -> float | None:
    """As `_left_s`, by BACKPROP_DEADLINE_FILE, which is read again only once its end has passed: it moves forward."""
    global _passes_s
    if path is None:
        return None
    if _passes_s is None or time.monotonic() >= _passes_s:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib is a slow import
                wall, steady, boot = file.read(200).split()
        except (OSError, ValueError):
            return None
        end, steady_end = _finite(wall), _finite(steady)
        if end is None or steady_end is None:
            return None
        _passes_s = steady_end if boot == _boot() else end - time.time() + time.monotonic()
    return _passes_s - time.monotonic()


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number - number == 0 else None  # NaN and infinity are no point in time


def _boot() -> str:
    """The id of this boot, empty where it cannot be read. The monotonic clock begins with it."""
    global _boot_id
    if _boot_id is None:
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib is a slow import
                _boot_id = file.read().strip()
        except OSError:
            _boot_id = ""
    return _boot_id


def _note() -> None:
    global _noted
    _noted = True
    leave_note("told-to-stop")


def _heed() -> None:
    global _heeding
    _heeding = True
    leave_note("heeds-stop")


def leave_note(name: str) -> None:
    """Leave an empty file beside the events. What the machine does wrong is no reason to end the training."""
    folder, _, events = os.environ.get("BACKPROP_EVENTS", "").rpartition("/")
    if not os.environ.get("BACKPROP_RUN_ID") or events != "events.jsonl":
        return
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(f"{folder}/{name}", flags, 0o600))
    except (OSError, ValueError):
        return


def _install() -> None:
    global _settled
    import signal

    name = os.environ.get("BACKPROP_STOP_SIGNAL") or "INT"
    number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
    if not isinstance(number, signal.Signals):
        _settled = True
        return
    previous = signal.getsignal(number)
    if previous not in (signal.SIG_DFL, signal.default_int_handler):
        _settled = True
        return

    def give_back() -> None:
        if signal.getsignal(number) is record:  # else the script has put its own in place since
            signal.signal(number, previous)

    def record(_number: int, _frame: "FrameType | None") -> None:
        global _asked
        _asked = True
        give_back()

    try:
        signal.signal(number, record)
    except ValueError:
        return  # not the main thread: a later call from there installs it
    except OSError:
        _settled = True  # KILL and STOP cannot be handled
        return
    _settled = True
    _keep_from_children(number, give_back)


def _keep_from_children(number: int, give_back: "Callable[[], None]") -> None:
    """Forked children start without the handler: one in a data loader would swallow its `terminate()`.

    The signal is blocked around the fork, because one that reaches the child while Python has yet to take the
    handler back there would be forgotten. Blocked, it waits, and then acts."""
    import signal
    from threading import get_ident

    masks: dict[int, set[int]] = {}  # by thread: several may fork at once

    def block() -> None:
        masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, {number})

    def unblock() -> None:
        mask = masks.pop(get_ident(), None)  # None: the fork began before these hooks were in place
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def start_afresh() -> None:
        global _asked, _settled
        give_back()
        _asked = _settled = False
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=start_afresh)
