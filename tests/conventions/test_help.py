"""Every command has help and a page in the docs; every option of the original is there under its own letter."""

import re

import click
import pytest

from backprop.cli.main import COMMANDS, backprop
from tests.support.harness import ROOT

CONTEXT = click.Context(backprop)
ORIGINAL = {
    "run": {
        "-m": "--max-run-minutes",
        "-f": "--framework",
        "-c": "--checkpoint-every-minutes",
        "-r": "--resume-from",
        "-n": "--name",
        "-g": "--gpu-memory-limit",
        "-p": "--max-parallel",
    },
    "worker": {"-p": "--max-parallel"},
    "logs": {"-f": "--follow"},
    "resume": {"-m": "--max-run-minutes"},
}
LONG = {
    "run": "--run-id --min-free-ram --gpu-probe --gpu-min-vram --gpu-max-temp --no-auto-resume --max-segments"
    " --max-total-minutes --grace-seconds --stop-signal --retries --max-cpu-load --resume-arg"
    " --recipe --checkpoint-glob --python --env --follow"
    " --config --verbose --dry-run",
    "worker": "--drain --gpu-probe --config --verbose --dry-run",
    "logs": "--segment",
    "list": "--json",
    "show": "--json",
    "status": "--json",
    "config": "--json --config",
}
DEFAULTS = {
    "--max-run-minutes": "10",
    "--max-parallel": "2",
    "--min-free-ram": "4",
    "--gpu-probe": "auto",
    "--gpu-min-vram": "2500",
    "--gpu-max-temp": "85",
    "--grace-seconds": "30",
    "--stop-signal": "INT",
}


def command(name: str) -> click.Command:
    found = backprop.get_command(CONTEXT, name)
    assert found is not None
    return found


def options(name: str) -> dict[str, click.Option]:
    """Return the options of a command by each of their spellings."""
    found = [one for one in command(name).params if isinstance(one, click.Option)]
    return {spelling: one for one in found for spelling in (*one.opts, *one.secondary_opts)}


def documents() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    found = command(name)
    assert found.help
    assert found.name == name
    for spelling, option in options(name).items():
        assert option.help, f"{name} {spelling}"
        assert option.help[0].isupper() or option.help[0].isdigit(), f"{name} {spelling}: {option.help}"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [80, 100])
def test_help_fits_the_terminal(name: str, width: int) -> None:
    context = click.Context(command(name), info_name=f"backprop {name}", terminal_width=width)
    lines = command(name).get_help(context).splitlines()
    examples = {line.strip() for line in (command(name).epilog or "").splitlines()}
    for line in lines:
        assert len(line) <= width or line.strip() in examples, line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_docs(name: str) -> None:
    assert re.search(rf"`backprop {name}\b", documents()), (
        f"`backprop {name}` is in neither README.md nor docs/"
    )


@pytest.mark.parametrize("name", LONG)
def test_every_option_that_was_promised_is_there(name: str) -> None:
    found = options(name)
    for spelling in LONG[name].split():
        assert spelling in found
    for letter, spelling in ORIGINAL.get(name, {}).items():
        assert found[letter] is found[spelling]


def test_the_options_of_the_program_itself() -> None:
    found = {spelling for one in backprop.params for spelling in one.opts}
    assert found >= {"--config", "--verbose", "--dry-run", "--version"}


def test_the_help_of_run_says_the_defaults_of_the_original() -> None:
    found = options("run")
    for spelling, default in DEFAULTS.items():
        assert f"[default: {default}]" in (found[spelling].help or ""), spelling


def test_every_option_of_run_is_in_the_docs() -> None:
    text = documents()
    missing = [one for one in options("run") if one.startswith("--") and one not in text]
    assert not missing
