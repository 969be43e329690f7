"""What a script's text says, as it is handed on to those who conclude from it."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

LONGEST_STRING: Final = 200


class Call(msgspec.Struct, frozen=True):
    """`name`: where what is called comes from ("torch.save"), else "." and the method's name (".fit"). `within`: the
    function around it."""

    name: str
    node: ast.Call
    within: str | None

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]


class Parameter(msgspec.Struct, frozen=True):
    """A function's parameter: its place among them, its default, whether it has an annotation."""

    function: str
    at: int
    name: str
    default: ast.expr | None
    annotation: ast.expr | None


class Script(msgspec.Struct, frozen=True):
    """What was found. `uses`: where the imported names that are used come from. `words`: every name, attribute and
    keyword. `strings`: short ones, docstrings left out. `values`: what is assigned to a name or attribute or passed
    as a keyword; under "Call()" what is passed first to `Call`. `fields`: of dataclasses and their like, by class."""

    modules: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()
    calls: tuple[Call, ...] = ()
    values: Mapping[str, Sequence[ast.expr]] = msgspec.field(default_factory=dict[str, Sequence[ast.expr]])
    parameters: Mapping[str, Sequence[Parameter]] = msgspec.field(
        default_factory=dict[str, Sequence[Parameter]]
    )
    fields: Mapping[str, Sequence[Parameter]] = msgspec.field(default_factory=dict[str, Sequence[Parameter]])
    on_interrupt: frozenset[str] = frozenset()

    def calls_of(self, *lasts: str) -> Iterator[Call]:
        """The calls whose last name is one of these."""
        return (call for call in self.calls if call.last in lasts)
