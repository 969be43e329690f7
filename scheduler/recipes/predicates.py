"""Predicates over a command and its script, from which recipes are composed.

A predicate gives its evidence in words, "" where it does not hold; `&`, `|` and `~` combine predicates. A `*` in a
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
    """All that is known of a command. `declared`: the script's own options."""

    command: Command
    script: Script
    declared: dict[str, Option]
    paths: Paths


class Predicate(msgspec.Struct, frozen=True):
    """`says`: a clause for the documentation."""

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
            f"not ({self.says})", lambda facts: "" if self.evidence(facts) else f"no {self.says}"
        )


def command(*names: str) -> Predicate:
    """Hold if one of these console commands or modules is started."""
    return Predicate(
        f"the command is {' or '.join(f'`{name}`' for name in names)}",
        lambda facts: f"the command {facts.command.entry}" if facts.command.entry in names else "",
    )


def word(*words: str) -> Predicate:
    """Hold if one of these words is among the arguments."""
    return Predicate(
        f"an argument is {' or '.join(f'`{each}`' for each in words)}",
        lambda facts: next((f"the argument {each}" for each in words if each in facts.command.arguments), ""),
    )


def given(*names: str) -> Predicate:
    """Hold if one of these options is among the arguments."""
    return Predicate(
        f"{' or '.join(f'`--{name}`' for name in names)} is given",
        lambda facts: next((f"--{name}" for name in names if facts.command.value(name) is not None), ""),
    )


def uses(*patterns: str) -> Predicate:
    """Hold if the script uses something that it imported from there."""

    def evidence(facts: Facts) -> str:
        matches = (name for name in facts.script.uses if any(_fits(name, each) for each in patterns))
        return min(matches, key=lambda name: (len(name), name), default="")

    return Predicate(f"it uses {' or '.join(f'`{each}`' for each in patterns)}", evidence)


def calls(*methods: str) -> Predicate:
    """Hold if the script calls a method of this name."""
    return Predicate(
        f"it calls {' or '.join(f'`.{each}()`' for each in methods)}",
        lambda facts: next((f".{call.last}()" for call in facts.script.calls_of(*methods)), ""),
    )


def imports(*modules: str) -> Predicate:
    """Hold if the script imports one of these modules, or one inside of it."""

    def evidence(facts: Facts) -> str:
        inside = tuple(f"{each}." for each in modules)
        return min(
            (f"import {m}" for m in facts.script.modules if m in modules or m.startswith(inside)), default=""
        )

    return Predicate(f"it imports {' or '.join(f'`{each}`' for each in modules)}", evidence)


def mentions(*words: str) -> Predicate:
    """Hold if the code has all these names, attributes or keywords; comments and strings do not count."""
    return Predicate(
        f"its code names {' and '.join(f'`{each}`' for each in words)}",
        lambda facts: words[0] if facts.script.words.issuperset(words) else "",
    )


def strings(*texts: str) -> Predicate:
    """Hold if the code has all these strings."""
    return Predicate(
        "its code has " + " and ".join(f"`'{each}'`" for each in texts),
        lambda facts: texts[0] if facts.script.strings.issuperset(texts) else "",
    )


def passes(name: str, *values: object) -> Predicate:
    """Hold if a keyword or variable of this name gets one of these constants somewhere."""

    def evidence(facts: Facts) -> str:
        held = facts.script.values.get(name, ())
        same = (each for each in held if isinstance(each, ast.Constant) and _among(each.value, values))
        return next((f"{name}={each.value!r}" for each in same), "")

    return Predicate(f"it sets {' or '.join(f'`{name}={value!r}`' for value in values)}", evidence)


def computes(name: str) -> Predicate:
    """Hold if a keyword or variable of this name gets a value that only running would tell."""

    def evidence(facts: Facts) -> str:
        held = facts.script.values.get(name, ())
        return name if any(not isinstance(each, ast.Constant) for each in held) else ""

    return Predicate(f"it computes `{name}`", evidence)


def _fits(name: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return name == pattern
    return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)


def _among(value: object, values: tuple[object, ...]) -> bool:
    """Return whether `value` is among them by value and type: True and 1 are equal, and not the same."""
    return any(value == each and type(value) is type(each) for each in values)
