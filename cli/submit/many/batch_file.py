"""Reads the file of --batch: command lines as a person would type them after `backprop run`."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.cli.submit.many.sweep import MOST
from backprop.scheduler.errors import BadCommand

OWN: Final = {"-n": "--name", "--name": "--name", "--run-id": "--run-id", "--key": "--key", "--env": "--env"}
"""Options in which lines usually differ. All others are parsed once for all lines that have the same."""


class BatchLine(msgspec.Struct, frozen=True):
    """One command. `shared`: its words before the script's own arguments, without those in `own`. `own`: (option,
    value). `arguments`: what comes after `--`."""

    number: int
    shared: tuple[str, ...]
    own: tuple[tuple[str, str], ...]
    arguments: tuple[str, ...]

    def value(self, option: str) -> str | None:
        """Return the last value given for `option`, None if there is none."""
        return next((value for name, value in reversed(self.own) if name == option), None)

    @property
    def env(self) -> tuple[str, ...]:
        """The KEY=VALUE texts of --env."""
        return tuple(value for name, value in self.own if name == "--env")


def read_lines(source: str, takes_value: frozenset[str]) -> list[BatchLine]:
    """Return the commands in a file, without empty lines and comments. Raises BadCommand, naming the line.

    `source`: a path, or `-` for stdin. `takes_value`: every option of `run` that has a value.
    """
    lines: list[BatchLine] = []
    for number, text in _commands(source):
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadCommand(f"--batch {source}, line {number}: {str(error).lower()}") from error
        if words[:2] == ["backprop", "run"]:
            words = words[2:]
        if words:
            lines.append(_line(number, words, takes_value))
        if len(lines) > MOST:
            raise BadCommand(f"--batch {source} has more than {MOST:,} runs, the most for one command")
    if not lines:
        raise BadCommand(f"--batch {source} has no commands")
    return lines


def _commands(source: str) -> Iterator[tuple[int, str]]:
    """Yield each command with the number of its first line: as in a shell, a line that ends in \\ goes on in the next.

    Raises BadCommand when there is no next line.
    """
    whole, first = "", 0
    for number, line in enumerate(_text(source).split("\n"), 1):
        whole, first = whole + line.removesuffix("\r"), first or number
        text, goes_on = scan(whole)
        if goes_on:
            whole = whole[:-1]
        else:
            yield first, text
            whole, first = "", 0
    if first:
        raise BadCommand(f"--batch {source}, line {first}: it ends in \\, and no line follows")


def scan(text: str) -> tuple[str, bool]:
    """Return the line up to an unquoted # that begins a word, and whether it ends in an unquoted backslash. `shlex`
    would also cut `out#1` in two."""
    quote, begins, skip = "", True, False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif char == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and begins:
            return text[:at], False
        begins = not quote and not skip and char.isspace()
    return text, skip


def _line(number: int, words: Sequence[str], takes_value: frozenset[str]) -> BatchLine:
    at = words.index("--") if "--" in words else len(words)
    head, shared, own = list(words[:at]), list[str](), list[tuple[str, str]]()
    while head:
        word = head.pop(0)
        name, equals, value = word.partition("=")
        if name in OWN and equals and name.startswith("--"):
            own.append((OWN[name], value))
        elif word in OWN and head:
            own.append((OWN[word], head.pop(0)))
        else:
            shared.append(word)
            if word in takes_value and head:
                shared.append(head.pop(0))
    return BatchLine(number, tuple(shared), tuple(own), tuple(words[at + 1 :]))


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCommand(f"--batch {source} is not UTF-8") from error
    except OSError as error:
        raise BadCommand(f"--batch {source} cannot be read: {error.strerror}") from error
