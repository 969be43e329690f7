"""What a training script may say to Backprop, and ask of it: `import backprop`.

Standard library only; reads the environment and appends to one file. Outside Backprop every function is
harmless: nothing is written, printed or raised, except TypeError and ValueError for arguments that would be
wrong inside too. No script needs this module: the same can be said by printing lines of JSON.

    import backprop

    model = load(backprop.resume_from()) if backprop.resume_from() else fresh()
    for step in steps:
        backprop.log(step=step, loss=train(model))
        if backprop.should_stop():
            save(model, "model.pt")              # to a temporary name, fsync, then os.replace
            backprop.checkpoint("model.pt", step=step)
            raise SystemExit(75)                 # "checkpointed, run me again"

This is also the parent package of `backprop.cli` and the rest, so it imports next to nothing.
"""

import os

from ._events import checkpoint, log
from ._stop import deadline, leave_note, should_stop

__all__ = ["checkpoint", "deadline", "log", "resume_from", "run_id", "segment", "should_stop"]

if "BACKPROP_GPU_MEMORY_LIMIT_MB" in os.environ:
    from ._limit import keep_to_limit

    keep_to_limit()
    del keep_to_limit


def resume_from() -> str | None:
    """Path of the checkpoint to resume from; None on a fresh start and outside Backprop. That the script asks is noted
    beside the events: it is then known to resume."""
    leave_note("takes-checkpoint")
    return os.environ.get("BACKPROP_RESUME_FROM") or None


def run_id() -> str | None:
    """Id of the run this process belongs to; None outside Backprop. The same in all its segments."""
    return os.environ.get("BACKPROP_RUN_ID") or None


def segment() -> int | None:
    """Number of this execution of the run, from 1; None outside Backprop."""
    try:
        return int(os.environ["BACKPROP_SEGMENT"])
    except (KeyError, ValueError):
        return None
