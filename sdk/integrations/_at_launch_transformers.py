"""The Hugging Face Trainer, and all that inherits its `train`: TRL, sentence-transformers."""

import os
from typing import Any

from ._at_launch import Integration, LeftAlone, Training, guard, module, refuse_our_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Transformers(Integration):
    name = "transformers"
    versions = ((5, 23), (5, 24))

    def version(self) -> str:
        return module("transformers").__version__

    def check(self, training: Training) -> None:
        trainer: Any = training.owner
        given = training.given("resume_from_checkpoint", 0)
        if given is not None:
            raise LeftAlone("the script says itself what to resume from")
        if training.given("trial", 1) is not None:
            raise LeftAlone("it searches for hyperparameters")
        if trainer.args.save_only_model:
            raise LeftAlone("save_only_model leaves the optimizer out")
        refuse_our_own(trainer.callback_handler.callbacks)
        checkpoint = os.environ.get("BACKPROP_RESUME_FROM")
        if checkpoint and not os.path.isfile(f"{checkpoint}/trainer_state.json"):  # noqa: PTH113
            raise LeftAlone("what there is to resume from is no checkpoint of the Trainer")

    def processes(self, training: Training) -> int:
        trainer: Any = training.owner
        return trainer.args.world_size

    def hand_over(self, training: Training) -> "Callable[..., object]":
        from .transformers import BackpropCallback

        trainer: Any = training.owner
        callback = BackpropCallback()
        guard(callback, self)
        if training.checkpoint is not None:
            training.give("resume_from_checkpoint", 0, training.checkpoint)
        trainer.add_callback(callback)
        return lambda: trainer.remove_callback(callback)
