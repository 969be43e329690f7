"""Ultralytics: `YOLO(…).train(…)`, and all that goes through `Model.train`.

Its own `last.pt` holds all that a resume needs until the training ends, and is overwritten after each epoch. So a copy
is announced. A resume begins with an epoch. So the stop signal is left to the framework, and a segment is best ended
right after a save.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from .._events import log
from ._at_launch import Integration, LeftAlone, Training, guard, module
from ._saving import FOLDER, Interval, announce, folder_of_run, keep_newest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_COPY_EVERY_S = 60.0
_KEPT = 2


class Ultralytics(Integration):
    name = "ultralytics"
    versions = ((8, 4), (8, 5))

    def version(self) -> str:
        return module("ultralytics").__version__

    def check(self, training: Training) -> None:
        options = _options(training)
        if options.get("resume"):
            raise LeftAlone("the script says itself what to resume from")
        if training.given("trainer", 0) is not None:
            raise LeftAlone("it has a trainer of its own")
        if options.get("save") is False:
            raise LeftAlone("save=False saves nothing")
        if options.get("time"):
            raise LeftAlone("it ends by the clock (time=)")
        if isinstance(options.get("data"), (list, tuple)):
            raise LeftAlone("it trains on several data sets in turn")
        if os.environ.get("LOCAL_RANK", "-1") != "-1":
            raise LeftAlone("it trains in several processes")
        checkpoint = os.environ.get("BACKPROP_RESUME_FROM")
        if checkpoint and not (checkpoint.endswith(".pt") and Path(checkpoint).is_file()):
            raise LeftAlone("what there is to resume from was not saved by the integration")

    def processes(self, training: Training) -> int:
        device: Any = _options(training).get("device")
        return len(device) if type(device) in (list, tuple) else str(device).count(",") + 1

    def hand_over(self, training: Training) -> "Callable[..., object]":
        model: Any = training.owner
        callback = BackpropCallback()
        guard(callback, self)
        hooks = {
            name: getattr(callback, name) for name in ("on_train_start", "on_model_save", "on_fit_epoch_end")
        }
        for name, hook in hooks.items():
            model.add_callback(name, hook)
        if training.checkpoint is not None:
            training.kwargs["resume"] = training.checkpoint

        def take_away() -> None:
            for name, hook in hooks.items():
                model.callbacks[name].remove(hook)

        return take_away


class BackpropCallback:
    """Announces a copy of `last.pt` once a minute, or as often as asked for, and tells epoch, loss and metrics."""

    def __init__(self) -> None:
        self._interval = Interval()
        self._folder = folder_of_run(Path(FOLDER).absolute())
        self._copied_s: float | None = None

    def on_train_start(self, trainer: Any) -> None:
        del trainer
        self._interval.begin()

    def on_model_save(self, trainer: Any) -> None:
        """Copy what was saved, unless nothing is left to resume: it was the last epoch."""
        epoch = trainer.epoch + 1
        now_s = time.monotonic()
        is_due = self._copied_s is None or now_s - self._copied_s >= _COPY_EVERY_S or self._interval.is_over()
        if not is_due or trainer.stop or epoch >= trainer.epochs:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"epoch-{epoch}.pt"
        draft = path.with_suffix(".tmp")
        shutil.copyfile(trainer.last, draft)
        draft.replace(path)
        announce(path, epoch)
        keep_newest(self._folder, "epoch-*.pt", _KEPT)
        self._copied_s = now_s
        self._interval.begin()

    def on_fit_epoch_end(self, trainer: Any) -> None:
        epoch = trainer.epoch + 1
        if epoch > trainer.epochs:
            return  # the validation after the last one
        metrics: dict[str, Any] = trainer.metrics or {}
        losses: dict[str, Any] = trainer.tloss or {}
        numbers = {_plain(name): float(value) for name, value in metrics.items() if name != "fitness"}
        loss = sum(map(float, losses.values())) if losses else None
        log(epoch, loss, total=trainer.epochs, **numbers)


def _plain(name: str) -> str:
    """Return a metric's name as a person would type it: "mAP50" for "metrics/mAP50(B)"."""
    return name.rpartition("/")[2].removesuffix("(B)")


def _options(training: Training) -> "dict[str, Any]":
    """Return what the training is told, of the model, of a file of options, and of the call."""
    model: Any = training.owner
    given: Any = training.kwargs.get("cfg")
    named: dict[str, Any] = module("ultralytics.utils").YAML.load(given) if given else dict(model.overrides)
    return {**named, **training.kwargs}
