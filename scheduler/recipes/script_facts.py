"""Holds what a script's text says."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

LONGEST_STRING: Final = 200


class Call(msgspec.Struct, frozen=True):
    """A call. `name`: where what is called comes from ("torch.save"), else "." and the method's name (".fit").
    `within`: the function around it."""

    name: str
    node: ast.Call
    within: str | None

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a function, or a field of a class. `at`: its position; -1 for a keyword-only parameter."""

    function: str
    at: int
    name: str
    default: ast.expr | None
    annotation: ast.expr | None


class Script(msgspec.Struct, frozen=True):
    """What a script's text says.

    `modules`: the imported ones. `uses`: where the imported names that are used come from. `words`: every name,
    attribute and keyword. `strings`: short ones without docstrings. `values`: what is assigned to a name or attribute,
    or passed as a keyword; under "Call()" what is passed first to `Call`. `parameters`: by function. `fields`: of
    dataclasses and the like, by class. `on_interrupt`: what is called where KeyboardInterrupt is caught. `keys_read`:
    what is read by a constant key, `state["epoch"]` or `state.get("epoch")`, and
    the names that `params, step = pickle.load(…)` gives to what it loads.
    """

    modules: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()
    calls: tuple[Call, ...] = ()
    values: Mapping[str, Sequence[ast.expr]] = {}
    parameters: Mapping[str, Sequence[Parameter]] = {}
    fields: Mapping[str, Sequence[Parameter]] = {}
    on_interrupt: frozenset[str] = frozenset()
    keys_read: frozenset[str] = frozenset()

    def calls_of(self, *lasts: str) -> Iterator[Call]:
        """Return the calls whose last name is among `lasts`."""
        return (call for call in self.calls if call.last in lasts)

    def calls_named(self, name: str) -> Iterator[Call]:
        """Return the calls of what was imported under this full name."""
        return (call for call in self.calls if call.name == name)
