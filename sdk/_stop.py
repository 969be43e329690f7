"""When this segment should end: at its deadline, or as soon as Backprop's stop signal has arrived."""

import os
import time

TYPE_CHECKING = False  # typing's own constant would import typing, 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_asked = False  # the stop signal has arrived
_settled = False  # nothing more to install in this process
_noted = False  # it is on disk that the script was told to stop


def deadline() -> float | None:
    """End of this segment's timebox in Unix seconds; None outside Backprop or without a timebox.

    Time spent paused does not count against the timebox, so after a pause the real end is later than this.
    """
    try:
        end = float(os.environ["BACKPROP_DEADLINE"])
    except (KeyError, ValueError):
        return None
    return end if end - end == 0 else None  # NaN and infinity are no point in time


def should_stop() -> bool:
    """Whether to save a checkpoint and exit now. Ask once a step; always False outside Backprop.

    True once `deadline()` has passed (after a pause that is early, which is harmless: the run goes on in
    another segment) or the stop signal has arrived.

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
    if _asked:
        return True
    end = deadline()
    return end is not None and time.time() >= end


def _note() -> None:
    """Leave an empty file beside the events. What the machine does wrong is no reason to end the training."""
    global _noted
    _noted = True
    folder, _, name = os.environ.get("BACKPROP_EVENTS", "").rpartition("/")
    if not os.environ.get("BACKPROP_RUN_ID") or name != "events.jsonl":
        return
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(f"{folder}/told-to-stop", flags, 0o600))
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
