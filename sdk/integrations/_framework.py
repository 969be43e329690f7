"""The framework that a callback is for: the user's, in the user's environment."""

import importlib
import sys
from types import ModuleType


def framework(*names: str, install: str) -> ModuleType:
    """The first of these modules that is there; one that is imported already goes first.

    `lightning.pytorch` and `pytorch_lightning` are two copies of the same code whose classes do not mix.
    Raises ModuleNotFoundError that says what to `install`; what a module raises while it is imported is passed on.
    """
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the framework is there, and misses something itself
    raise ModuleNotFoundError(
        f"this callback needs {names[0]}, which is not installed in {sys.prefix}: pip install {install}",
        name=names[0],
    )
