"""Lightning 2, as `lightning` and as `pytorch_lightning`."""

import os
import zipfile
from typing import Any

from ._at_launch import Integration, LeftAlone, Training, guard, module, refuse_our_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = "backprop"
_MARKS = (b"pytorch-lightning_version", b"optimizer_states")


class Lightning(Integration):
    name = "lightning"
    versions = ((2, 6), (2, 7))

    def __init__(self, package: str) -> None:
        self._package = package

    def version(self) -> str:
        return module(self._package).__version__

    def is_a_trial(self, training: Training) -> bool:
        trainer: Any = training.owner
        return any(getattr(callback, "_early_exit", False) for callback in trainer.callbacks)

    def check(self, training: Training) -> None:
        trainer: Any = training.owner
        if training.given("ckpt_path", 4) is not None:
            raise LeftAlone("the script says itself what to resume from")
        if trainer.fast_dev_run or trainer.barebones:
            raise LeftAlone("its Trainer saves nothing (fast_dev_run, barebones)")
        refuse_our_own(trainer.callbacks)
        checkpoint = os.environ.get("BACKPROP_RESUME_FROM")
        if checkpoint and not is_whole_state(checkpoint):
            raise LeftAlone("what there is to resume from is no checkpoint of Lightning's")

    def processes(self, training: Training) -> int:
        trainer: Any = training.owner
        return trainer.world_size

    def hand_over(self, training: Training) -> "Callable[..., object]":
        from .lightning import BackpropCallback

        trainer: Any = training.owner
        if not any(one.__module__.partition(".")[0] == self._package for one in BackpropCallback.__mro__):
            raise LeftAlone("lightning and pytorch_lightning are both imported")
        loops = "lightning.pytorch" if self._package == "lightning" else self._package
        callback, leave = _exact(trainer, BackpropCallback, module(f"{loops}.loops.fetchers"))
        guard(callback, self)
        if training.checkpoint is not None:
            training.give("ckpt_path", 4, training.checkpoint)
        trainer.callbacks.append(callback)

        def undo() -> None:
            leave()
            trainer.callbacks.remove(callback)

        return undo


def is_whole_state(path: str) -> bool:
    """Return whether a file is Lightning's, with the optimizers in it. A directory is of a strategy that shards."""
    if os.path.isdir(path):  # noqa: PTH112
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            text = archive.read(pickled)
    except (OSError, zipfile.BadZipFile, StopIteration):
        return False
    return all(mark in text for mark in _MARKS)


def _exact(trainer: Any, base: Any, fetchers: Any) -> "tuple[Any, Callable[[], None]]":
    """Return the callback with the place in the data in its checkpoints, and what lets go of the data."""
    from ._lightning_data import DataPlace

    place = DataPlace(trainer, fetchers._DataFetcher)

    def on_save_checkpoint(
        self: object, trainer: Any, pl_module: object, checkpoint: "dict[str, Any]"
    ) -> None:
        del self, trainer, pl_module
        checkpoint[_KEY] = place.state()

    def on_load_checkpoint(
        self: object, trainer: Any, pl_module: object, checkpoint: "dict[str, Any]"
    ) -> None:
        del self, trainer, pl_module
        place.restore(checkpoint.get(_KEY))

    def on_train_start(self: Any, trainer: Any, pl_module: object) -> None:
        base.on_train_start(self, trainer, pl_module)
        place.begin()

    hooks: dict[str, Any] = {
        "on_save_checkpoint": on_save_checkpoint,
        "on_load_checkpoint": on_load_checkpoint,
    }
    kind: Any = type(
        "AttachedCallback", (base,), {**hooks, "on_train_start": on_train_start, "__module__": __name__}
    )
    place.follow()
    return kind(), place.leave
