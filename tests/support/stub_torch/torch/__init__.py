"""Stands in for PyTorch on the fake GPUs: the few names that `benchmarks/gpu` uses, typed, and nothing else.

Put the folder above this package on PYTHONPATH, in the environment of a `FakeDriver`. Memory is taken from the fake
driver, so NVML sees it. Arithmetic is deterministic and tiny: a tensor holds a few numbers whatever its shape. The type
checker reads this package in place of the real one, which need not be installed.
"""

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch import cuda

__version__ = "0.stub"
uint8: Final = "uint8"
int32: Final = "int32"
_VALUES: Final = 4
_random = random.Random(0)


class Tensor:
    """A few numbers. `parameters`: the tensors that a loss was computed with."""

    def __init__(self, values: Sequence[float], parameters: "Sequence[Tensor]" = ()) -> None:
        self.values = list(values)
        self.gradient = 0.0
        self._parameters = parameters

    def fill_(self, value: float) -> "Tensor":
        self.values = [float(value)] * len(self.values)
        return self

    def item(self) -> float:
        return sum(self.values) / len(self.values)

    def sum(self) -> "Tensor":
        cuda.wait_while_moved()
        return Tensor([sum(self.values)])

    def backward(self) -> None:
        for parameter in self._parameters:
            parameter.gradient += self.item()

    def parameters(self) -> "Sequence[Tensor]":
        return self._parameters

    def argmax(self, dim: int) -> "Tensor":
        return self

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def contiguous(self) -> "Tensor":
        return self

    def flatten(self) -> "Tensor":
        return self

    def view(self, dtype: str) -> "Tensor":
        return Tensor(list(struct.pack(f"{len(self.values)}d", *self.values)))

    def tolist(self) -> list[int]:
        return [int(value) for value in self.values]

    def __getitem__(self, key: object) -> "Tensor":
        return self


def empty(size: int, *, dtype: str, device: str) -> Tensor:
    """Take `size` bytes of the fake GPUs; exit like a script that runs out of GPU memory where they are not free."""
    cuda.take(size)
    return Tensor([0.0])


def arange(size: int, *, dtype: str, device: str) -> Tensor:
    """Take `size` numbers of four bytes of the fake GPUs."""
    cuda.take(size * 4)
    return Tensor([float(size)])


def randn(*shape: int, device: str) -> Tensor:
    return Tensor([_random.gauss(0.0, 1.0) for _ in range(_VALUES)])


def manual_seed(seed: int) -> None:
    _random.seed(seed)


def use_deterministic_algorithms(mode: bool) -> None:
    return None


def save(value: object, path: Path) -> None:
    """Write a zip archive with the entries by which the real format is recognised."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value))
        archive.writestr("archive/version", "3\n")


def load(path: Path, *, map_location: str = "cpu", weights_only: bool = True) -> Any:
    """Read what `save` wrote; refuse objects as the real one does since 2.6, and obey the same variable."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read("archive/data.pkl")
    if weights_only and os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") != "1":
        return _Plain(io.BytesIO(data)).load()
    return pickle.loads(data)


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in ("torch", "collections"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"Weights only load failed: Unsupported global: GLOBAL {module}.{name}")


from torch import nn, optim  # noqa: E402  (they need Tensor)

__all__ = [
    "Tensor",
    "arange",
    "cuda",
    "empty",
    "int32",
    "load",
    "manual_seed",
    "nn",
    "optim",
    "randn",
    "save",
    "uint8",
    "use_deterministic_algorithms",
]
