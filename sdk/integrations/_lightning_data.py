"""Where in an epoch Lightning's training data stands, and how to get there again.

Lightning goes on in the middle of an epoch, but a DataLoader begins it anew: some batches would be seen twice and
others not at all. So what the random number generators were before the epoch's iterator was made is saved beside what
they are now. On a resume the iterator is made from the first, the batches that were seen are passed over, and training
goes on with the second. All is asked of private parts of versions that are tested.
"""

import contextlib
from typing import Any

from . import _random_state

_MAP_STYLE = 0


class DataPlace:
    """Follows the training data of one trainer, from `follow` to `leave`."""

    def __init__(self, trainer: Any, fetcher: Any) -> None:
        self._trainer = trainer
        self._fetcher = fetcher
        self._original = fetcher.__iter__
        self._epoch: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        self._later: dict[str, Any] | None = None
        self._is_resumed = False

    def follow(self) -> None:
        """Have the iterators of the training data made by us. One trainer at a time."""
        make = self._original

        def __iter__(fetcher: Any) -> Any:  # noqa: N807
            return self._made(fetcher, make) if fetcher is self._own() else make(fetcher)

        self._fetcher.__iter__ = __iter__

    def leave(self) -> None:
        """Put back what `follow` replaced."""
        self._fetcher.__iter__ = self._original

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {"epoch": self._epoch, "now": _random_state.take()}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take what a checkpoint held, before the first iterator is made."""
        self._resume = state

    def begin(self) -> None:
        """Go on with the numbers of the moment of the save, right before the first batch."""
        if self._later is not None:
            _random_state.put(self._later)
            self._later = None

    def _own(self) -> Any:
        return self._trainer.fit_loop._data_fetcher

    def _made(self, fetcher: Any, make: Any) -> Any:
        """Make an iterator. What fails here is Lightning's own way again: the epoch's data begin anew."""
        seen = 0
        with contextlib.suppress(Exception):
            seen = self._before()
        made = make(fetcher)
        with contextlib.suppress(Exception):
            if seen:
                _pass_over(fetcher.iterator, seen)
            elif self._later is None and self._is_resumed:
                self._later = _random_state.take()
        self._is_resumed = False
        return made

    def _before(self) -> int:
        """Set the numbers that the iterator is made from; return how many batches to pass over."""
        state, self._resume = self._resume, None
        if state is None:
            self._epoch = _random_state.take()
            return 0
        self._is_resumed = True
        loop = self._trainer.fit_loop
        progress, epochs = loop.epoch_loop.batch_progress, loop.epoch_progress.current
        seen = progress.current.ready
        now: dict[str, Any] = state["now"]
        began: dict[str, Any] | None = state["epoch"] if seen > 0 and not progress.is_last_batch else None
        is_inside = began is not None
        began = began or now
        self._epoch = began
        _random_state.put(began)
        # An epoch whose batches are all seen is ended first; the next one makes its own iterator.
        if is_inside or (seen > 0 and epochs.completed < epochs.ready):
            self._later = now
        return seen if is_inside else 0


def _pass_over(batches: Any, count: int) -> None:
    """Pass over so many batches, without loading them where one process loads one of them after another."""
    batches = batches._iterator
    loaders = batches.iterators
    only: Any = loaders[0] if len(loaders) == 1 else None
    if type(only).__name__ == "_SingleProcessDataLoaderIter" and only._dataset_kind == _MAP_STYLE:
        for _ in range(count):
            only._next_index()
        only._num_yielded += count
        batches._idx += count
        return
    for _ in range(count):
        next(batches)
