"""Prints a generated page of the docs: the command line that the generators share."""

import argparse
from collections.abc import Callable


def print_page(path: str, make: Callable[[], str], generator: str) -> None:
    """Print what `make` returns. `path`: the file in the repository. `generator`: the module's last name."""
    argparse.ArgumentParser(
        prog=f"python -m tools.docs.{generator}",
        description=f"Print {path}. A test compares the two: after a change, redirect the output there.",
    ).parse_args()
    print(make(), end="")
