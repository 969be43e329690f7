"""The state of the random number generators that a training draws from, as lists and numbers."""

import random
import sys
from typing import Any


def take() -> "dict[str, Any]":
    """Return the state of those that are in use. A GPU's only once it is."""
    torch: Any = sys.modules.get("torch")
    numpy: Any = sys.modules.get("numpy")
    state: dict[str, Any] = {"python": _lists(random.getstate())}
    if torch is not None:
        state["torch"] = torch.get_rng_state().tolist()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = [each.tolist() for each in torch.cuda.get_rng_state_all()]
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state(legacy=True)
        state["numpy"] = [name, keys.tolist(), *rest]
    return state


def put(state: "dict[str, Any]") -> None:
    """Set them to a state that `take` returned."""
    torch: Any = sys.modules.get("torch")
    numpy: Any = sys.modules.get("numpy")
    random.setstate(_tuples(state["python"]))
    if torch is not None and "torch" in state:
        torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
        cuda = [torch.tensor(each, dtype=torch.uint8) for each in state.get("cuda", ())]
        if cuda and len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)
    if numpy is not None and "numpy" in state:
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), *rest))


def _lists(value: Any) -> Any:
    parts: Any = value
    return [_lists(each) for each in parts] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    parts: Any = value
    return tuple(_tuples(each) for each in parts) if isinstance(value, list) else value
