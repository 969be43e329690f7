"""Keras's callback as it is attached at launch: it goes on in the middle of an epoch, as if nothing had been.

`fit` can only begin an epoch. So the epoch begins with the random numbers that it began with, its batches come in the
same order, and those that were trained are passed over without training. Then the metrics and the random numbers of
the moment of the save are put back. That is done with the PyTorch backend, whose step is a function of the batch.
Other backends begin the epoch anew, as `BackpropCallback` does. Keras's own callbacks get back what they count by.
"""

import json
from pathlib import Path
from typing import Any

from . import _random_state
from ._at_launch import module
from .keras import PROGRESS, BackpropCallback

EXACT = "exact.json"
ARRAYS = "exact.npz"
_COUNTS = ("best", "wait", "stopped_epoch", "best_epoch", "cooldown_counter")


class AttachedCallback(BackpropCallback):
    """`others`: the script's own callbacks."""

    def __init__(self, others: "tuple[Any, ...]") -> None:
        super().__init__()
        self._others = [each for each in others if type(each).__module__.startswith("keras.")]
        self._began: dict[str, Any] | None = None
        self._exact: dict[str, Any] | None = None
        self._arrays: dict[str, Any] = {}
        self._to_pass = 0
        self._passing = False
        self._logs: dict[str, Any] = {}

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        super().on_epoch_begin(epoch, logs)
        exact, self._exact = self._exact, None
        if exact is None:
            self._began = _random_state.take()
            return
        self._began = exact["began"]
        _random_state.put(exact["began"])
        model: Any = self.model
        train, self._to_pass, self._passing = model.train_function, exact["seen"], True

        def pass_over(data: object) -> "dict[str, float]":
            del data
            self._to_pass -= 1
            if self._to_pass == 0:
                model.train_function = train
                self._put_back(model, exact)
            return dict(exact["logs"])

        model.train_function = pass_over

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._passing:
            self._seen = batch + 1
            self._passing = self._to_pass > 0
            return
        self._logs = logs or {}
        super().on_train_batch_end(batch, logs)

    def _add_to(self, folder: Path) -> None:
        model: Any = self.model
        arrays: dict[str, Any] = {
            f"metric {at}": module("keras").ops.convert_to_numpy(one)
            for at, one in enumerate(model.metrics_variables)
        }
        counts: list[dict[str, Any]] = []
        for at, other in enumerate(self._others):
            counts.append({name: _plain(getattr(other, name)) for name in _COUNTS if hasattr(other, name)})
            best: Any = getattr(other, "best_weights", None)
            arrays |= {f"best {at} {number}": one for number, one in enumerate(best or ())}
        exact = {
            "began": self._began,
            "now": _random_state.take(),
            "seen": self._seen,
            "logs": {name: float(value) for name, value in self._logs.items()},
            "counts": counts,
        }
        module("numpy").savez(folder / ARRAYS, **arrays)
        (folder / EXACT).write_text(json.dumps(exact))

    def _restore(self, path: Path) -> None:
        super()._restore(path)
        exact, model = json.loads((path / EXACT).read_text()), self.model
        with module("numpy").load(path / ARRAYS) as arrays:
            self._arrays = dict(arrays)
        for at, (other, counts) in enumerate(zip(self._others, exact["counts"], strict=False)):
            for name, value in counts.items():
                setattr(other, name, value)
            best = [one for name, one in self._arrays.items() if name.startswith(f"best {at} ")]
            if best:
                other.best_weights = best
        in_steps = getattr(model, "steps_per_execution", 1) == 1
        if module("keras").backend.backend() != "torch" or not in_steps or exact["began"] is None:
            return
        progress: dict[str, int] = json.loads((path / PROGRESS).read_text())
        self._until, self._carried = None, 0
        model._initial_epoch = progress["epoch"]  # pyright: ignore[reportPrivateUsage]
        if exact["seen"]:
            self._exact = exact
        else:
            _random_state.put(exact["now"])

    def _put_back(self, model: Any, exact: "dict[str, Any]") -> None:
        saved = [one for name, one in self._arrays.items() if name.startswith("metric ")]
        for variable, value in zip(model.metrics_variables, saved, strict=False):
            variable.assign(value)
        self._arrays = {}
        _random_state.put(exact["now"])


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int)) else float(value)
