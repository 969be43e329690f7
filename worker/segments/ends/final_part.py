"""Tells from its output whether a script that exited 0 after it was asked to stop had finished its training.

Exit code 0 says nothing then: scripts that catch an interrupt, save and leave exit 0 as well. Two things count:

- Its counters stand at their end, all of them: `step 1000/1000`, or an epoch that was the last and is over. One that is
  not full speaks against it. A full bar alone does not count: it may be a validation's, or that of one epoch of many.
- It had said that training is over before the stop signal reached it.

Where in doubt, it had not finished: a run that is done twice costs time, one that is taken for done costs the result.
"""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import NotAFile, open_regular
from backprop.worker.executor.segment_files import StopFile
from backprop.worker.segments.ends.seen_counters import SeenCounter, counters_in, lines_of
from backprop.worker.segments.tail import LAST_BYTES, NO_LOG

OVER: Final = "it had said that training was over"
_SAYS_OVER: Final = re.compile(
    r"\{'train_runtime': \d"  # Hugging Face
    r"|Trainer\.fit`? stopped: `?max_(?:epochs|steps)=\d+`? reached"  # Lightning
    r"|\b\d+ epochs completed in \d"  # Ultralytics
    r"|\bdone training in \d"  # fairseq
    r"|^\W*(?:finished training|training (?:is )?(?:complete|completed|finished|done))\b\W*(?:$|in \d|after \d)",
    re.IGNORECASE,
)
_BREAKS_OFF: Final = re.compile(
    r"interrupt|abort|(?:exit|stop|quit|leav|end)\w{0,4}\s(?:\w+\s){0,2}early|early[ -](?:exit|stop)",
    re.IGNORECASE,
)
_GOES_ON: Final = re.compile(r"\bloss['\"]?\W{1,4}\d(?!.*\b(?:final|best|average|mean)\b)", re.IGNORECASE)
_RESULT: Final = re.compile(r"\b(?:val|valid|validation|test|eval|final|best|average|mean)\b", re.IGNORECASE)


class Verdict(msgspec.Struct, frozen=True):
    """What one output says. `end`: what shows the end, in words. `unfinished`: a counter is not full."""

    end: str | None = None
    unfinished: bool = False


def shown_end(folder: Path, stop: StopFile | None) -> str | None:
    """Return what shows that the segment in `folder` had finished, in words; None if nothing does.

    `stop`: the note of the signal; None where there was none. Raises OSError when its output cannot be read now.
    """
    # What it said once `should_stop()` had said yes, it may have said because of that.
    asked_at = stop.log_bytes if stop is not None else None
    log = folder / "log"
    verdicts = [said(*_ends(log), before=_before(log, asked_at)), said(*_ends(folder / "events.jsonl"))]
    if any(verdict.unfinished for verdict in verdicts):
        return None
    return next((verdict.end for verdict in verdicts if verdict.end is not None), None)


def said(begin: bytes, end: bytes, before: bytes = b"") -> Verdict:
    """Judge an output by its begin and its end, which do not overlap. `before`: its end as it was before the signal."""
    first, last = lines_of(begin), lines_of(end)
    lines = first + last
    seen = list(counters_in(lines))
    counters = [counter for counter in seen if counter.total]
    if any(not family[-1].is_full for family in _families(counters)):
        return Verdict(unfinished=True)
    if any(_BREAKS_OFF.search(line) for line in last):
        return Verdict()
    shown = _full(counters, steps_of_epochs=any(one.key == "epoch" and not one.total for one in seen))
    if shown is not None and not _goes_on(lines[max(counter.line for counter in counters) + 1 :]):
        return Verdict(f"{shown.label} {shown.number}/{shown.total}")
    return Verdict(OVER if _said_over(first, lines_of(before)) else None)


def _full(counters: Sequence[SeenCounter], *, steps_of_epochs: bool) -> SeenCounter | None:
    """Return which of full counters shows the end. `steps_of_epochs`: epochs without a total are named, and with each
    the steps may begin again."""
    epochs = [counter for counter in counters if counter.label == "epoch"]
    steps = [counter for counter in counters if counter.label == "step"]
    shows = epochs if epochs else [] if steps_of_epochs else steps
    if len({counter.total for counter in shows}) != 1 or not _rises(shows) or not shows[-1].is_full:
        return None
    if shows is epochs:
        return shows[-1] if _is_summed_up(epochs) or _is_filled(epochs, counters) else None
    return None if shows[0].is_full else shows[-1]


def _rises(counters: Sequence[SeenCounter]) -> bool:
    """Return whether a counter never went back: one that begins anew counts something smaller than the training."""
    return all(one.number <= other.number for one, other in pairwise(counters))


def _is_summed_up(epochs: Sequence[SeenCounter]) -> bool:
    """Return whether each epoch has one line, with its result, so that it stands there once the epoch is over."""
    numbers = [epoch.number for epoch in epochs]
    return len(numbers) > 1 and len(set(numbers)) == len(numbers) and all(epoch.measured for epoch in epochs)


def _is_filled(epochs: Sequence[SeenCounter], counters: Sequence[SeenCounter]) -> bool:
    """Return whether all that is counted within the last epoch has come to its end there."""
    begins = next(epoch.line for epoch in epochs if epoch.is_full)
    named = {epoch.line for epoch in epochs if epoch.is_full}
    within = [counter for counter in counters if counter.label not in ("epoch", "aside")]
    if not within or any(family[-1].line < begins for family in _families(within)):
        return False
    grew = not epochs[0].is_full or any(not counter.is_full for counter in within)
    own = (
        counter
        for counter in within
        if counter.label == "step"
        or counter.key == "keras"
        or (counter.label == "batch" and counter.line in named)
    )
    return grew and any(counter.is_full and counter.line >= begins for counter in own)


def _families(counters: Sequence[SeenCounter]) -> list[list[SeenCounter]]:
    found: dict[tuple[str, int | None], list[SeenCounter]] = {}
    for counter in counters:
        found.setdefault((counter.key, counter.total), []).append(counter)
    return list(found.values())


def _said_over(first: Sequence[str], before: Sequence[str]) -> bool:
    """Return whether it said so once, and trained no more until it was asked to stop. Of two trainings in one script,
    the end of the first is none."""
    said_at = [at for at, line in enumerate(before) if _SAYS_OVER.search(line)]
    if len(said_at) != 1 or any(_SAYS_OVER.search(line) for line in first):
        return False
    after = before[said_at[0] + 1 :]
    again = any(counter.total and counter.label in ("step", "epoch") for counter in counters_in(after))
    return not again and not _goes_on(after)


def _goes_on(lines: Sequence[str]) -> bool:
    return any(_GOES_ON.search(line) and not _RESULT.search(line) for line in lines)


def _before(path: Path, size: int | None) -> bytes:
    """Return the end of what a file held when it had `size`; nothing if it has been cut since."""
    return _read(path, size - LAST_BYTES, size) if size and _size(path) >= size else b""


def _ends(path: Path) -> tuple[bytes, bytes]:
    size = _size(path)
    return _read(path, 0, min(LAST_BYTES, size - LAST_BYTES)), _read(path, size - LAST_BYTES, size)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError as error:
        if error.errno in NO_LOG:
            return 0
        raise


def _read(path: Path, start: int, end: int) -> bytes:
    """Return a span of a file, without a first line that the span has cut."""
    if end <= 0:
        return b""
    try:
        handle = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in NO_LOG or isinstance(error, NotAFile | IsADirectoryError):
            return b""
        raise
    try:
        content = os.pread(handle, end - max(start, 0), max(start, 0))
    finally:
        os.close(handle)
    return re.split(rb"[\r\n]", content, maxsplit=1)[-1] if start > 0 else content
