"""The one loss that is used."""

from torch import Tensor


def cross_entropy(inputs: Tensor, target: Tensor) -> Tensor:
    distances = [abs(one - other) for one, other in zip(inputs.values, target.values, strict=True)]
    return Tensor(distances, inputs.parameters())
