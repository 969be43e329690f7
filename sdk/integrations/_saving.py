"""What the callbacks share: when to save, where, and how many of their own checkpoints stay."""

import os
import shutil
import time
from pathlib import Path

from .. import _stop, run_id  # pyright: ignore[reportPrivateUsage]  # of the same package
from .._events import checkpoint
from .._stop import should_stop

AGAIN = 75
"""Exit code: "checkpointed, run me again". Where a script sees the end of its timebox before Backprop has signalled it,
exit 0 would mean that the training is done."""
FOLDER = "backprop_checkpoints"


def asked_to_stop() -> bool:
    """`should_stop()`, but under torchrun the signal alone.

    torchrun makes exit code 1 of our 75. Where the deadline passes before the signal, as it does after a pause, that
    would be a failure.
    """
    goes_on = "TORCHELASTIC_RUN_ID" in os.environ and not _stop._asked  # pyright: ignore[reportPrivateUsage]
    return _stop.is_over() and not goes_on and should_stop()


class Interval:
    """The user's own wish for checkpoints in between: `--checkpoint-every-minutes`."""

    def __init__(self) -> None:
        self._every_s = _seconds(os.environ.get("BACKPROP_CHECKPOINT_EVERY_SECONDS"))
        self._saved_s = time.monotonic()

    @property
    def asked_for(self) -> bool:
        return self._every_s is not None

    def is_over(self) -> bool:
        return self._every_s is not None and time.monotonic() - self._saved_s >= self._every_s

    def begin(self) -> None:
        """A checkpoint has been saved, or training begins."""
        self._saved_s = time.monotonic()


def folder_of_run(base: "str | os.PathLike[str]") -> Path:
    """Where this run's own checkpoints go: two runs in one directory neither mix nor delete each other's."""
    return Path(base) / (run_id() or "no-run")


def announce(path: Path, step: int | None, begun_s: "float | None" = None) -> None:
    """Put the file or directory on the disk, then tell Backprop of it. A save that fails at that is not announced.
    `begun_s`: when the save began, of the monotonic clock."""
    try:
        for each in [*path.rglob("*"), path, path.parent] if path.is_dir() else [path, path.parent]:
            fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError:
        return
    checkpoint(path.absolute(), step, None if begun_s is None else time.monotonic() - begun_s)


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Delete all but the `count` last written of what fits `pattern` in a folder from `folder_of_run`.

    By time, not by number: a run that was begun again from scratch counts from 0 beside its older files.
    """
    for _, path in sorted(_dated(folder, pattern), reverse=True)[max(count, 1) :]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _dated(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    found: list[tuple[int, Path]] = []
    for path in folder.glob(pattern):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except OSError:
            continue
    return found


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value > 0 else None
