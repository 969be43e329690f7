"""Searches a line by a regular expression in time proportional to line and pattern.

Python's `re` may take years over one line, and nothing else of the process runs meanwhile. Here a pattern becomes a
list of instructions, and none is tried twice at the same place of a line; what is found is what `re` would find.
Lookarounds and back-references can't be matched that way, so they are refused.
"""

import re
from itertools import takewhile
from typing import Final

from backprop.worker.progress.pattern_parser import CLASSES, BadPattern, PatternNode, PatternParser, Test

MAX_PROGRAM: Final = 400

Instruction = tuple[str, int, int, Test | None]
"""What to do (char, split, save, at, found), up to two numbers, and the test of a character or a place."""


class LinearRegex:
    """A compiled pattern. Raises BadPattern for what `re` refuses and for what takes more than linear time."""

    def __init__(self, pattern: str) -> None:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise BadPattern(str(error)) from None
        ignores_case = pattern.startswith("(?i)")
        node = PatternParser(pattern.removeprefix("(?i)"), ignores_case).whole()
        self._program = _compile(node)
        letters = takewhile(bool, (part.literal for part in node.parts)) if node.kind == "seq" else ()
        self._begins_with = "".join(letters)

    def search(self, text: str, max_tries: int) -> tuple[str | None, int]:
        """Return what the first group matches, or the whole pattern where it has none, and how many instructions that
        took. None where nothing matches, and after `max_tries`."""
        visited: set[tuple[int, int]] = set()
        begin = text.find(self._begins_with)
        while 0 <= begin <= len(text):
            stack = [(0, begin, begin, -1)]
            while stack:
                pc, at, first, last = stack.pop()
                if (pc, at) in visited:
                    continue
                visited.add((pc, at))
                if len(visited) > max_tries:
                    return None, max_tries
                what, one, two, test = self._program[pc]
                if what == "char":
                    if at < len(text) and test is not None and test(text[at]):
                        stack.append((pc + 1, at + 1, first, last))
                elif what == "split":
                    stack += [(two, at, first, last), (one, at, first, last)]
                elif what == "jump":
                    stack.append((one, at, first, last))
                elif what == "save":
                    stack.append((pc + 1, at, at if one == 0 else first, at if one == 1 else last))
                elif what == "at":
                    if _is_at(one, text, at):
                        stack.append((pc + 1, at, first, last))
                else:
                    return text[first : at if last < 0 else last], len(visited)
            begin = text.find(self._begins_with, begin + 1)
        return None, len(visited)


def _compile(node: PatternNode) -> list[Instruction]:
    program: list[Instruction] = []
    _emit(node, program)
    program.append(("found", 0, 0, None))
    return program


def _emit(node: PatternNode, program: list[Instruction]) -> None:
    if len(program) > MAX_PROGRAM:
        raise BadPattern("it is too long with its repeats written out")
    match node.kind:
        case "char":
            program.append(("char", 0, 0, node.test))
        case "at":
            program.append(("at", node.place, 0, None))
        case "seq":
            for part in node.parts:
                _emit(part, program)
        case "group":
            program.append(("save", 0, 0, None))
            _emit(node.parts[0], program)
            program.append(("save", 1, 0, None))
        case "any":
            _emit_choice(node.parts, program)
        case _:
            _emit_repeat(node, program)


def _emit_choice(parts: tuple[PatternNode, ...], program: list[Instruction]) -> None:
    jumps: list[int] = []
    for part in parts[:-1]:
        split = len(program)
        program.append(("split", split + 1, 0, None))
        _emit(part, program)
        jumps.append(len(program))
        program.append(("jump", 0, 0, None))
        program[split] = ("split", split + 1, len(program), None)
    _emit(parts[-1], program)
    for jump in jumps:
        program[jump] = ("jump", len(program), 0, None)


def _emit_repeat(node: PatternNode, program: list[Instruction]) -> None:
    for _ in range(node.least):
        _emit(node.parts[0], program)
    splits: list[int] = []
    for _ in range((node.most or 0) - node.least if node.most is not None else 1):
        splits.append(len(program))
        program.append(("split", 0, 0, None))
        _emit(node.parts[0], program)
    if node.most is None:
        program.append(("jump", splits[0], 0, None))
    for split in splits:
        into, past = split + 1, len(program)
        program[split] = ("split", past, into, None) if node.lazy else ("split", into, past, None)


def _is_at(place: int, text: str, at: int) -> bool:
    if place < 2:
        return at == (0 if place == 0 else len(text))
    word = CLASSES["w"]
    before, after = at > 0 and word(text[at - 1]), at < len(text) and word(text[at])
    return (before != after) == (place == 2)
