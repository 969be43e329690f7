"""For Lightning: `Trainer(callbacks=[BackpropCallback()])`, for `lightning` and `pytorch_lightning` alike.

from backprop.integrations.lightning import BackpropCallback

trainer = Trainer(callbacks=[BackpropCallback()])
trainer.fit(model, data, ckpt_path=backprop.resume_from())
"""

import contextlib
import os
import re
import time
from pathlib import Path

from .. import run_id
from .._events import log
from ._framework import framework
from ._saving import AGAIN, FOLDER, Interval, announce, asked_to_stop, folder_of_run, keep_newest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Protocol, SupportsFloat, TypeGuard

    class Strategy(Protocol):
        def barrier(self) -> None: ...
        def reduce_boolean_decision(self, decision: bool, all: bool) -> bool: ...  # noqa: A002 - its name there

    class ModelCheckpoint(Protocol):
        best_model_path: str
        save_weights_only: bool
        last_model_path: str

    class Count(Protocol):
        ready: int

    class Progress(Protocol):
        total: Count
        current: Count

    class FitLoop(Protocol):
        epoch_progress: Progress

    class State(Protocol):
        fn: str | None

    class Trainer(Protocol):
        """What is used of `lightning.pytorch.Trainer`."""

        callback_metrics: Mapping[str, SupportsFloat]
        callbacks: list[object]
        checkpoint_callbacks: list[object]
        default_root_dir: str
        estimated_stepping_batches: float
        fit_loop: FitLoop
        global_step: int
        is_global_zero: bool
        is_last_batch: bool
        log_every_n_steps: int
        sanity_checking: bool
        state: State
        strategy: Strategy
        world_size: int

        def save_checkpoint(self, filepath: Path) -> None: ...

    class Callback:
        """The base class, whose hooks do nothing."""
else:
    Callback = framework("lightning.pytorch", "pytorch_lightning", install="lightning").Callback

TELL_EVERY_S = 1.0
VALIDATION_S = 3.0
"""So long may a validation go on once it is asked to stop: an epoch that ends where its batches were made is whole."""


class BackpropCallback(Callback):
    """Saves after the batch in which Backprop asks the segment to stop, and exits with 75.

    `folder`: where to save; a `backprop_checkpoints` in the trainer's `default_root_dir` if None. The newest `keep` of
    its own files stay, at least one. What a ModelCheckpoint saves is announced as well. Step, loss and logged
    metrics are told every `log_every_n_steps` of the trainer, and every second. On several ranks all stop at the same
    batch, also when the signal reached one.
    """

    def __init__(self, folder: "str | os.PathLike[str] | None" = None, keep: int = 2) -> None:
        super().__init__()
        self._folder = folder
        self._keep = keep
        self._interval = Interval()
        self._step = 0
        self._leaving = False
        self._ends_with_epoch_s: float | None = None
        self._told_s = 0.0
        self._seen: set[str] = set()

    def setup(self, trainer: "Trainer", pl_module: object, stage: str) -> None:
        """Goes to the end of the list: what the others do after a batch belongs into the checkpoint."""
        trainer.callbacks = [*(each for each in trainer.callbacks if each is not self), self]
        asked_to_stop()  # so that its handler is there before Lightning installs its own, which then calls ours too

    def on_train_start(self, trainer: "Trainer", pl_module: object) -> None:
        self._step = trainer.global_step
        self._seen = _saved_by_others(trainer)
        self._interval.begin()

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if not run_id() or trainer.global_step == self._step:
            return  # gradients are still being added up, and a checkpoint would not hold them
        self._step = trainer.global_step
        every = trainer.log_every_n_steps
        if trainer.is_global_zero and self._tells(every):
            numbers = _numbers_of(trainer) | {"step": self._step, "loss": _loss_in(outputs)}
            log(**numbers)  # pyright: ignore[reportArgumentType]  # numbers, as was asked
        self._announce_others(trainer)
        stop = self._save_if_asked(trainer)
        # With the last batch of an epoch, not before its end: a resume would lack its validation, and what is summed up
        # over its batches.
        self._leaving = stop and not trainer.is_last_batch
        if stop and trainer.is_last_batch:
            self._end_with_epoch()

    def _tells(self, every: int) -> bool:
        """Whether to tell how far it is: when the trainer logs, and every second where it seldom does."""
        now_s = time.monotonic()
        if not (every and self._step % every == 0) and now_s - self._told_s < TELL_EVERY_S:
            return False
        self._told_s = now_s
        return True

    def on_train_batch_start(self, *_: object) -> None:
        """Ends here, not before, so that the last step still reaches the loggers."""
        if self._leaving:
            raise SystemExit(AGAIN)

    def on_validation_start(self, *_: object) -> None:
        if self._leaving:
            raise SystemExit(AGAIN)

    def on_validation_batch_end(self, trainer: "Trainer", *_: object) -> None:
        """A validation may take longer than the grace. Lightning goes on in the middle of one."""
        if not (run_id() and trainer.state.fn == "fit" and not trainer.sanity_checking):
            return
        since_s = self._ends_with_epoch_s
        if since_s is None:
            if self._save_if_asked(trainer):
                self._end_with_epoch()
        elif _any_rank(trainer, time.monotonic() - since_s > VALIDATION_S):
            self._leave(trainer)

    def on_validation_end(self, trainer: "Trainer", *_: object) -> None:
        """A validation in the middle of an epoch: the end of that is too far away."""
        if self._ends_with_epoch_s is not None and not trainer.is_last_batch:
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: "Trainer", *_: object) -> None:
        """Ends here, not at the end of an epoch, so that the other callbacks and the loggers have had that."""
        if self._ends_with_epoch_s is not None:
            with _as_before_epoch(trainer):
                self._leave(trainer)

    def on_exception(self, trainer: "Trainer", pl_module: object, exception: BaseException) -> None:
        """Lightning's own way out on SIGTERM, between two batches. It would exit 0."""
        if run_id() and type(exception).__name__ == "SIGTERMException" and isinstance(exception, SystemExit):
            if not self._leaving:  # the signal came after we had asked
                self._save(trainer)
            exception.code = AGAIN

    def _end_with_epoch(self) -> None:
        self._ends_with_epoch_s = time.monotonic()

    def _leave(self, trainer: "Trainer") -> None:
        self._save(trainer)
        raise SystemExit(AGAIN)

    def _save_if_asked(self, trainer: "Trainer") -> bool:
        """Whether to stop."""
        stop = _any_rank(trainer, asked_to_stop())
        if stop or (self._interval.asked_for and _any_rank(trainer, self._interval.is_over())):
            self._save(trainer)
        return stop

    def _announce_others(self, trainer: "Trainer") -> None:
        """What the trainer's own ModelCheckpoint has saved: a power cut leaves nothing newer."""
        saved = _saved_by_others(trainer)
        for path in sorted(saved - self._seen):
            if trainer.is_global_zero:
                step = re.search(r"step=(\d+)", Path(path).name)
                announce(Path(path), int(step.group(1)) if step else None)
        self._seen = saved

    def _save(self, trainer: "Trainer") -> None:
        """On all ranks: strategies that shard the model save together."""
        step, begun_s = trainer.global_step, time.monotonic()
        folder = folder_of_run(self._folder or Path(trainer.default_root_dir) / FOLDER)
        path = folder / f"step={step}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            announce(path, step, begun_s)
            keep_newest(folder, "step=*.ckpt", self._keep)
        trainer.strategy.barrier()  # a launcher ends all ranks with the first that leaves
        self._interval.begin()


@contextlib.contextmanager
def _as_before_epoch(trainer: "Trainer") -> "Generator[None]":
    """Have Lightning count the epoch that begins as not begun. A resume would take it for done, and pass it over."""
    progress = trainer.fit_loop.epoch_progress
    for count in (progress.total, progress.current):
        count.ready -= 1
    try:
        yield
    finally:
        for count in (progress.total, progress.current):
            count.ready += 1


def _numbers_of(trainer: "Trainer") -> dict[str, float | None]:
    """What the module has logged, and how many steps there will be, where that is known."""
    numbers: dict[str, float | None] = {
        name: float(value) for name, value in trainer.callback_metrics.items()
    }
    total = trainer.estimated_stepping_batches
    return numbers | ({"total": total} if total < float("inf") else {})


def _saved_by_others(trainer: "Trainer") -> set[str]:
    found = (
        (one.best_model_path, one.last_model_path)
        for one in trainer.checkpoint_callbacks
        if _is_model(one) and not one.save_weights_only
    )
    return {path for several in found for path in several if path}


def _is_model(checkpoints: object) -> "TypeGuard[ModelCheckpoint]":
    """OnExceptionCheckpoint is one of them too, and has no such paths."""
    return hasattr(checkpoints, "best_model_path") and hasattr(checkpoints, "last_model_path")


def _any_rank(trainer: "Trainer", wish: bool) -> bool:
    return wish if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(wish, all=False)


def _loss_in(outputs: object) -> float | None:
    """What `training_step` returned: a tensor, or a dict with one; None if it returned no loss."""
    loss: object = outputs.get("loss") if _is_mapping(outputs) else outputs
    try:
        return None if loss is None else float(loss)  # pyright: ignore[reportArgumentType]  # or it raises
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_mapping(outputs: object) -> "TypeGuard[Mapping[str, object]]":
    return isinstance(outputs, dict)
