"""Layers with one parameter each, or none."""

from torch import Tensor
from torch.nn import functional


class Module:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs

    def to(self, device: str) -> "Module":
        return self

    def parameters(self) -> list[Tensor]:
        return list(self.tensors.values())

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.tensors)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in state.items():
            self.tensors[name].values = list(tensor.values)


class Linear(Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.tensors["weight"] = Tensor([1.0 / in_features])

    def __call__(self, inputs: Tensor) -> Tensor:
        weight = self.tensors["weight"].item()
        return Tensor([value * weight for value in inputs.values])


class ReLU(Module):
    def __call__(self, inputs: Tensor) -> Tensor:
        return Tensor([max(value, 0.0) for value in inputs.values])


class Dropout(Module):
    def __init__(self, p: float) -> None:
        super().__init__()


class Sequential(Module):
    def __init__(self, *layers: Module) -> None:
        super().__init__()
        self._layers = layers
        self.tensors = {
            f"{number}.{name}": tensor
            for number, layer in enumerate(layers)
            for name, tensor in layer.tensors.items()
        }

    def __call__(self, inputs: Tensor) -> Tensor:
        for layer in self._layers:
            inputs = layer(inputs)
        return Tensor(inputs.values, self.parameters())


__all__ = ["Dropout", "Linear", "Module", "ReLU", "Sequential", "functional"]
