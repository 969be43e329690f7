"""Every command line in the docs, in a sentence, a table or a block, has a command and options that exist."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from backprop.cli.main import COMMANDS, backprop
from tests.support.harness import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "cli.md"),
]
LINE = re.compile(r"`(backprop [^`]+)`|^(?:\$ )?(backprop [^\n]+)$", re.M)
FOREIGN = {"kill", "squeue", "add", "--lr"}
"""Typed to show what is answered."""


@cache
def options(name: str) -> set[str]:
    command = backprop.get_command(click.Context(backprop), name)
    assert command is not None
    params = [*command.get_params(click.Context(command)), *backprop.params]
    return {word for one in params for word in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}


def lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command line up to `--`, a comment or another program."""
    for match in LINE.finditer(page.read_text()):
        text = re.split(r"\s(?:--|#|\||&&|<|>|2>)(?:\s|$)|[;)]", match[1] or match[2])[0]
        try:
            yield shlex.split(text)
        except ValueError:  # a quote that the sentence cuts
            yield text.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_has_a_command_and_options_that_exist(page: Path) -> None:
    for _, *words in lines(page):
        while words and words[0].startswith("-"):
            words = words[1:]
        if not words or words[0] != words[0].lower() or words[0] in FOREIGN or not words[0].isalpha():
            continue
        name, *rest = (word.strip(",.:…'\"") for word in words)
        assert name in COMMANDS, f"backprop {' '.join(words)}"
        script = next((at for at, word in enumerate(rest) if word.endswith(".py")), len(rest))
        for word in rest[: script if name == "drill" else None]:
            spelling = word.partition("=")[0]
            if re.fullmatch(r"--?[a-z][a-z-]*", spelling) and spelling not in FOREIGN:
                assert spelling in options(name), f"{spelling} in: backprop {' '.join(words)}"
