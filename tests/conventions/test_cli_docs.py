"""docs/cli.md is made from the program's own help."""

import subprocess
import sys

import click

from backprop.cli.main import COMMANDS, backprop
from tests.support.harness import ROOT
from tools.docs.commands import manual

PAGE = ROOT / "docs" / "cli.md"
NOT_TYPED = {"suspend", "unsuspend", "import", "mcp"}
"""They need a live run, a file of another tool, or a program to talk to."""


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == manual(), "run: python -m tools.docs.commands > docs/cli.md"


def test_it_has_every_command_and_every_option() -> None:
    text = PAGE.read_text()
    for name in COMMANDS:
        assert f"\n## backprop {name}\n" in text
        command = backprop.get_command(click.Context(backprop), name)
        assert command is not None
        section = text.partition(f"\n## backprop {name}\n")[2].partition("\n## ")[0]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(f"`{spelling}" in section for spelling in option.opts), (name, option.opts)


def test_each_command_has_a_sample_of_its_output() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    missing = [name for name in COMMANDS if f"\n$ backprop {name}" not in page and name not in NOT_TYPED]
    assert missing == []
    assert all(f"`backprop {name}" in page or f"\nbackprop {name}" in page for name in NOT_TYPED)


def test_the_module_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs.commands"], capture_output=True, text=True, check=True
    )
    assert done.stdout == manual()
