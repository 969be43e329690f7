"""Parses the regular expressions that can be searched for in linear time. `re` has accepted them before."""

import re
from collections.abc import Callable
from typing import Final

import msgspec

Test = Callable[[str], bool]

_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
CLASSES: Final[dict[str, Test]] = {
    "d": str.isdecimal,
    "s": str.isspace,
    "w": lambda char: char.isalnum() or char == "_",
}


class BadPattern(ValueError):
    """A pattern that is not taken, with why."""


class PatternNode(msgspec.Struct, frozen=True):
    """A piece of a pattern: `char`, `at` a place, `seq`, `any` of its parts, `repeat`, `group` (the first one)."""

    kind: str
    parts: tuple["PatternNode", ...] = ()
    test: Test | None = None
    place: int = 0
    least: int = 0
    most: int | None = None
    lazy: bool = False
    literal: str = ""


class PatternParser:
    """Reads a pattern that `re` has accepted."""

    def __init__(self, pattern: str, ignores_case: bool) -> None:
        self._pattern, self._at = pattern, 0
        self._ignores_case = ignores_case
        self._groups = 0

    def whole(self) -> PatternNode:
        node = self._choice()
        if self._at < len(self._pattern):
            raise BadPattern(f"{self._pattern[self._at :]!r} is not understood")
        return node

    def _choice(self) -> PatternNode:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else PatternNode("any", tuple(options))

    def _sequence(self) -> PatternNode:
        parts: list[PatternNode] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            parts.append(self._repeated(self._one()))
        return PatternNode("seq", tuple(parts))

    def _repeated(self, node: PatternNode) -> PatternNode:
        bounds = re.compile(r"[*+?]|\{(\d{0,4})(,?)(\d{0,4})\}").match(self._pattern, self._at)
        if bounds is None or bounds[0] in ("{}", "{,}"):
            return node
        self._at = bounds.end()
        if bounds[0] in "*+?":
            least, most = (1 if bounds[0] == "+" else 0), (1 if bounds[0] == "?" else None)
        else:
            least = int(bounds[1] or 0)
            most = least if not bounds[2] else int(bounds[3]) if bounds[3] else None
        if self._take("+"):
            raise BadPattern("possessive repeats can't be matched")
        return PatternNode("repeat", (node,), least=least, most=most, lazy=self._take("?"))

    def _one(self) -> PatternNode:
        char = self._pattern[self._at]
        self._at += 1
        if char == "(":
            return self._group()
        if char == "[":
            return self._set()
        if char == "\\":
            return self._escape()
        if char == ".":
            return PatternNode("char", test=lambda char: char != "\n")
        if char in "^$":
            return PatternNode("at", place="^$".index(char))
        node = self._char(lambda other: other == char)
        return node if self._ignores_case else msgspec.structs.replace(node, literal=char)

    def _group(self) -> PatternNode:
        counts = True
        if self._take("?:"):
            counts = False
        elif self._take("?P<"):
            self._at = self._pattern.index(">", self._at) + 1
        elif self._take("?"):
            raise BadPattern("lookarounds, conditions and flags inside a pattern can't be matched")
        self._groups += counts
        is_first = counts and self._groups == 1
        node = self._choice()
        self._take(")")
        return PatternNode("group", (node,)) if is_first else node

    def _escape(self) -> PatternNode:
        char = self._pattern[self._at]
        self._at += 1
        if char in "bBAZ":
            return PatternNode("at", place="^$bB".find({"A": "^", "Z": "$"}.get(char, char)))
        return self._char(self._escaped(char))

    def _escaped(self, char: str) -> Test:
        if char.lower() in CLASSES:
            test = CLASSES[char.lower()]
            return test if char.islower() else lambda other: not test(other)
        if char in _CONTROLS:
            return lambda other: other == _CONTROLS[char]
        if char.isalnum():
            raise BadPattern(f"\\{char} can't be matched")
        return lambda other: other == char

    def _set(self) -> PatternNode:
        negated = self._take("^")
        tests: list[Test] = []
        begin = self._at
        while self._pattern[self._at] != "]" or self._at == begin:
            low = self._member(tests)
            if low and self._pattern[self._at] == "-" and self._pattern[self._at + 1] != "]":
                self._at += 1
                high = self._member([])
                tests.append(lambda other, low=low, high=high: low <= other <= (high or low))
            elif low:
                tests.append(lambda other, low=low: other == low)
        self._at += 1
        return self._char(lambda other: any(test(other) for test in tests), negated)

    def _member(self, tests: list[Test]) -> str:
        """Read one member of a set: return its character, or add the test of a class and return nothing."""
        char = self._pattern[self._at]
        self._at += 1
        if char != "\\":
            return char
        char = self._pattern[self._at]
        self._at += 1
        if char.lower() in CLASSES:
            tests.append(self._escaped(char))
            return ""
        if char.isalnum() and char not in _CONTROLS:
            raise BadPattern(f"\\{char} can't be matched")
        return _CONTROLS.get(char, char)

    def _char(self, test: Test, negated: bool = False) -> PatternNode:
        def either(char: str) -> bool:
            return test(char) or test(char.lower()) or test(char.upper())

        chosen = either if self._ignores_case else test
        return PatternNode("char", test=(lambda char: not chosen(char)) if negated else chosen)

    def _take(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True
