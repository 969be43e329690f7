"""What can be told of a command and its script, as marks that entries are put together from.

A mark gives its evidence in words, "" where it does not hold; `&`, `|` and `~` put marks together. A `*` in a
pattern stands for anything.
"""

import ast
from collections.abc import Callable

import msgspec

from backprop.scheduler.recipes.command_line import Command
from backprop.scheduler.recipes.declared_options import Option
from backprop.scheduler.recipes.path_expressions import Paths
from backprop.scheduler.recipes.script_facts import Script


class Facts(msgspec.Struct, frozen=True):
    """All that is known. `declared`: the script's own options."""

    command: Command
    script: Script
    declared: dict[str, Option]
    paths: Paths


class Predicate(msgspec.Struct, frozen=True):
    """`says`: for the documentation."""

    says: str
    evidence: Callable[[Facts], str]

    def __and__(self, other: "Predicate") -> "Predicate":
        def both(facts: Facts) -> str:
            first = self.evidence(facts)
            second = other.evidence(facts) if first else ""
            return first if second else ""

        return Predicate(f"{self.says} and {other.says}", both)

    def __or__(self, other: "Predicate") -> "Predicate":
        says = f"{'' if self.says.startswith('either ') else 'either '}{self.says}, or {other.says}"
        return Predicate(says, lambda facts: self.evidence(facts) or other.evidence(facts))

    def __invert__(self) -> "Predicate":
        return Predicate(
            f"without {self.says}", lambda facts: "" if self.evidence(facts) else f"no {self.says}"
        )


def command(*names: str) -> Predicate:
    """One of these console commands or modules is started."""
    return Predicate(
        f"the command {' or '.join(f'`{name}`' for name in names)}",
        lambda facts: f"the command {facts.command.entry}" if facts.command.entry in names else "",
    )


def word(*words: str) -> Predicate:
    """One of these words is among the arguments."""
    return Predicate(
        f"the argument {' or '.join(f'`{one}`' for one in words)}",
        lambda facts: next((f"the argument {one}" for one in words if one in facts.command.arguments), ""),
    )


def given(*names: str) -> Predicate:
    """One of these options is among the arguments."""
    return Predicate(
        f"{' or '.join(f'`--{name}`' for name in names)} given",
        lambda facts: next((f"--{name}" for name in names if facts.command.value(name) is not None), ""),
    )


def uses(*patterns: str) -> Predicate:
    """The script uses something that it imported from there."""

    def evidence(facts: Facts) -> str:
        found = (name for name in facts.script.uses if any(_fits(name, one) for one in patterns))
        return min(found, key=lambda name: (len(name), name), default="")

    return Predicate(f"{' or '.join(f'`{one}`' for one in patterns)} used", evidence)


def calls(*methods: str) -> Predicate:
    """A method of this name is called."""
    return Predicate(
        f"{' or '.join(f'`.{one}()`' for one in methods)} called",
        lambda facts: next((f".{call.last}()" for call in facts.script.calls_of(*methods)), ""),
    )


def imports(*modules: str) -> Predicate:
    """A module of these, or one inside of it, is imported."""

    def evidence(facts: Facts) -> str:
        inside = tuple(f"{one}." for one in modules)
        return min(
            (f"import {m}" for m in facts.script.modules if m in modules or m.startswith(inside)), default=""
        )

    return Predicate(f"{' or '.join(f'`{one}`' for one in modules)} imported", evidence)


def mentions(*words: str) -> Predicate:
    """All these names, attributes or keywords stand in the code; not in a comment or string."""
    return Predicate(
        " and ".join(f"`{one}`" for one in words) + " in the code",
        lambda facts: words[0] if facts.script.words.issuperset(words) else "",
    )


def strings(*texts: str) -> Predicate:
    """All these strings stand in the code."""
    return Predicate(
        " and ".join(f"`'{one}'`" for one in texts),
        lambda facts: texts[0] if facts.script.strings.issuperset(texts) else "",
    )


def passes(name: str, *values: object) -> Predicate:
    """A keyword or variable of this name holds one of these constants somewhere."""

    def evidence(facts: Facts) -> str:
        held = facts.script.values.get(name, ())
        same = (each for each in held if isinstance(each, ast.Constant) and _among(each.value, values))
        return next((f"{name}={each.value!r}" for each in same), "")

    return Predicate(" or ".join(f"`{name}={value!r}`" for value in values), evidence)


def computes(name: str) -> Predicate:
    """A keyword or variable of this name gets what only running would tell."""

    def evidence(facts: Facts) -> str:
        held = facts.script.values.get(name, ())
        return name if any(not isinstance(each, ast.Constant) for each in held) else ""

    return Predicate(f"`{name}=` worked out by the script", evidence)


def _fits(name: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return name == pattern
    return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)


def _among(value: object, values: tuple[object, ...]) -> bool:
    """True and 1 are equal, and not the same."""
    return any(value == one and type(value) is type(one) for one in values)
