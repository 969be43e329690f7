"""docs/cli.md is made from the program's own help."""

import subprocess
import sys

import click

from backprop.cli.main import COMMANDS, backprop
from tests.support.harness import ROOT
from tools.docs.commands import manual

PAGE = ROOT / "docs" / "cli.md"


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


def test_the_module_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs.commands"], capture_output=True, text=True, check=True
    )
    assert done.stdout == manual()
