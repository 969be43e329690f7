"""Keras 3: `Model.fit`, of its own backends."""

import os
from typing import Any

from ._at_launch import Integration, LeftAlone, Training, guard, module, refuse_our_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CALLBACKS = 5  # the position of `callbacks` in the arguments of `fit`


class Keras(Integration):
    name = "keras"
    versions = ((3, 15), (3, 16))

    def version(self) -> str:
        return module("keras").__version__

    def check(self, training: Training) -> None:
        given: Any = training.given("callbacks", _CALLBACKS)
        if type(given) not in (type(None), list, tuple):
            raise LeftAlone("its callbacks are no list")
        callbacks: tuple[Any, ...] = tuple(given or ())
        refuse_our_own(callbacks)
        if any(type(callback).__name__ == "BackupAndRestore" for callback in callbacks):
            raise LeftAlone("its BackupAndRestore resumes it")
        if training.given("initial_epoch", 11):
            raise LeftAlone("the script says itself which epoch to begin with")
        checkpoint = os.environ.get("BACKPROP_RESUME_FROM")
        if checkpoint and not os.path.isfile(f"{checkpoint}/progress.json"):  # noqa: PTH113
            raise LeftAlone("what there is to resume from was not saved by the integration")

    def processes(self, training: Training) -> int:
        model: Any = training.owner
        strategy = getattr(model, "distribute_strategy", None)
        distribution: Any = module("keras").distribution.distribution()
        return 2 if distribution is not None or getattr(strategy, "num_replicas_in_sync", 1) > 1 else 1

    def hand_over(self, training: Training) -> "Callable[..., object]":
        from ._keras_exact import AttachedCallback

        given: Any = training.given("callbacks", _CALLBACKS)
        callback = AttachedCallback(tuple(given or ()))
        # What can't be loaded ends the segment, so that another checkpoint is tried: to begin anew would be silent.
        guard(callback, self, but="on_train_begin")
        training.give("callbacks", _CALLBACKS, [*(given or ()), callback])
        return lambda: None
