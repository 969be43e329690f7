"""The manual page and the completion scripts that the wheel brings are made from the program's own help."""

import shutil
import subprocess
import sys

import click
import pytest

from backprop.cli.exit_codes import MEANINGS
from backprop.cli.main import COMMANDS, backprop
from tests.support.harness import ROOT
from tools.docs.completions import FILES
from tools.docs.man_page import page

SHARE = ROOT / "tools" / "share"
MAN = SHARE / "backprop.1"


def test_the_manual_page_is_current() -> None:
    assert MAN.read_text() == page(), "run: python -m tools.docs.man_page > tools/share/backprop.1"


def test_it_has_every_command_and_option_and_exit_code() -> None:
    text = MAN.read_text().replace("\\-", "-")
    for name in COMMANDS:
        assert f"\n.SS backprop {name}" in text
        command = backprop.get_command(click.Context(backprop), name)
        assert command is not None
        section = text.partition(f"\n.SS backprop {name}")[2].partition("\n.SS ")[0]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(f"\\fB{spelling}\\fR" in section for spelling in option.opts), (name, option.opts)
    assert all(f"\\fB{code}\\fR" in text for code, _ in MEANINGS)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_say_against_it() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Kutf8", "-Tutf8", str(MAN)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("shell", FILES)
def test_the_completion_scripts_are_current(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs.completions", shell], capture_output=True, text=True, check=True
    )
    path = SHARE / FILES[shell]
    assert path.read_text() == done.stdout, (
        f"run: python -m tools.docs.completions {shell} > tools/share/{path.name}"
    )


def test_the_page_of_exit_codes_says_the_same() -> None:
    rows = (ROOT / "docs" / "exit-codes.md").read_text().splitlines()
    told = [
        tuple(cell.strip() for cell in row.replace("\\|", "\0").split("|")[1:3])
        for row in rows
        if row.startswith("| ")
    ]
    assert told[2:] == [(code, meaning.replace("|", "\0")) for code, meaning in MEANINGS]
