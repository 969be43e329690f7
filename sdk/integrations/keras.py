"""For Keras 3, any backend: `model.fit(…, callbacks=[BackpropCallback()])`. It resumes by itself.

    from backprop.integrations.keras import BackpropCallback

    model.fit(inputs, targets, epochs=50, callbacks=[BackpropCallback()])

Keras can begin an epoch, but not go on in the middle of one. So a resumed epoch begins anew, with the weights it had
reached, and `fit` ends when as many batches have been trained as without interruption.
"""

import json
import os
import shutil
import time
from pathlib import Path

from .. import resume_from, run_id
from .._events import log
from ._framework import framework
from ._saving import AGAIN, FOLDER, Interval, announce, asked_to_stop, folder_of_run, keep_newest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol, SupportsFloat

    class Optimizer(Protocol):
        built: bool

        def build(self, variables: object) -> None: ...

    class Model(Protocol):
        """What is used of `keras.Model`. `_initial_epoch` is how `BackupAndRestore` tells `fit` where to begin."""

        optimizer: Optimizer | None
        stop_training: bool
        trainable_variables: object
        _initial_epoch: int

        def save_weights(self, filepath: Path) -> None: ...
        def load_weights(self, filepath: Path) -> None: ...

    class Callback:
        """The base class, whose hooks do nothing."""

        model: Model
        params: Mapping[str, int | None]
else:
    Callback = framework("keras", install="keras").callbacks.Callback

WEIGHTS = "model.weights.h5"
PROGRESS = "progress.json"
TELL_EVERY_S = 1.0


class BackpropCallback(Callback):
    """Saves after the batch in which Backprop asks the segment to stop, and exits with 75.

    `folder`: where to save, beside `--checkpoint-every-minutes` the only time it does. A checkpoint is a directory
    `step-N` of weights and optimizer state, and how far they are. The newest `keep` stay, at least one. Step, loss
    and metrics (the epoch's means so far, as Keras tells them) are told every second. Give it as the
    last of the callbacks, so that the others have seen the batch too, and not together with `BackupAndRestore`, which
    would restore as well.
    """

    def __init__(self, folder: "str | os.PathLike[str]" = FOLDER, keep: int = 2) -> None:
        super().__init__()
        self._folder = folder
        self._keep = keep
        self._interval = Interval()
        self._step = 0  # batches trained in all, over all segments
        self._until: int | None = None  # the step at which a resumed `fit` has done its epochs
        self._epoch = 0
        self._carried = 0  # batches by which the training is ahead of Keras's count of them
        self._seen = 0  # batches of this pass over the data
        self._told_s = 0.0
        self._training = False

    def on_train_begin(self, logs: object = None) -> None:
        """Restores what it saved itself; anything else that is resumed from is the script's matter."""
        if not run_id():
            return
        asked_to_stop()  # so that its handler is there from the first batch on
        path = resume_from()
        if path and (Path(path) / PROGRESS).is_file():
            self._restore(Path(path))
        self._interval.begin()
        self._training = True

    def on_train_end(self, logs: object = None) -> None:
        self._training = False

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch, self._seen, self._told_s = epoch, 0, 0.0

    def on_train_batch_end(self, batch: int, logs: "Mapping[str, SupportsFloat] | None" = None) -> None:
        if not run_id():
            return
        self._step += batch + 1 - self._seen  # several at once with steps_per_execution
        self._seen = batch + 1
        stop = asked_to_stop()
        if stop or time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._tell(logs)
        if stop or self._interval.is_over():
            self._save()
        if stop:
            raise SystemExit(AGAIN)
        if self._until is not None and self._step >= self._until:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: "Mapping[str, SupportsFloat] | None" = None) -> None:
        if run_id():
            self._tell(logs)

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        """A validation may take longer than the grace. It is not made up for."""
        if self._training and asked_to_stop():
            self._save()
            raise SystemExit(AGAIN)

    def _tell(self, logs: "Mapping[str, SupportsFloat] | None") -> None:
        numbers: dict[str, float] = {name: float(value) for name, value in (logs or {}).items()}
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        numbers |= {"total": steps * epochs} if steps and epochs else {}
        log(**numbers | {"step": self._step})  # pyright: ignore[reportArgumentType]  # numbers, as was asked
        self._told_s = time.monotonic()

    def _save(self) -> None:
        begun_s = time.monotonic()
        folder = folder_of_run(self._folder)
        path, unfinished = folder / f"step-{self._step}", folder / f".step-{self._step}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self.model.save_weights(unfinished / WEIGHTS)
        progress = {"step": self._step, "epoch": self._epoch, "batches": self._carried + self._seen}
        (unfinished / PROGRESS).write_text(json.dumps(progress))
        self._add_to(unfinished)
        shutil.rmtree(path, ignore_errors=True)  # of an earlier life of the run, begun again from scratch
        unfinished.rename(path)
        announce(path, self._step, begun_s)
        keep_newest(folder, "step-*", self._keep)
        self._interval.begin()

    def _add_to(self, folder: Path) -> None:
        """Add to a checkpoint what a callback built on this one restores beside it."""

    def _restore(self, path: Path) -> None:
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)  # else there is nothing to load its state into
        self.model.load_weights(path / WEIGHTS)
        progress: dict[str, int] = json.loads((path / PROGRESS).read_text())
        self._step, epoch = progress["step"], progress["epoch"]
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        if (
            steps and epochs
        ):  # else it is not known how many batches an epoch has, and the epoch is begun anew
            whole, self._carried = divmod(progress["batches"], steps)
            epoch += whole
            self._until = self._step + (epochs - epoch) * steps - self._carried
        self.model._initial_epoch = epoch  # pyright: ignore[reportPrivateUsage]  # there is no other way
