"""Plain gradient descent under the optimizer's name."""

import time
from typing import Any

from torch import Tensor

_STEP_S = 0.0005
"""So that a training takes seconds, in as many steps as a real one."""


class Optimizer:
    def __init__(self, parameters: list[Tensor], lr: float) -> None:
        self._parameters = parameters
        self._lr = lr

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.gradient = 0.0

    def step(self) -> None:
        time.sleep(_STEP_S)
        for parameter in self._parameters:
            parameter.values = [value - self._lr * parameter.gradient for value in parameter.values]

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self._lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lr = state["lr"]


class AdamW(Optimizer):
    pass
