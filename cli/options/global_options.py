"""Reads the options that many commands have: --config, --verbose and --dry-run, and --json of the verbs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from backprop.cli.help.completion import complete_files
from backprop.cli.render import answers

F = TypeVar("F", bound=Callable[..., Any])


brief_option: Final = click.option("--brief", is_flag=True, help="As JSON in short: a run is at most 1 KB.")


class Globals(msgspec.Struct, frozen=True):
    """The options that every command has. `config`: the project file to read instead of the one found."""

    config: Path | None
    verbose: bool
    dry_run: bool


def global_options(command: F) -> F:
    """Accept --config, --verbose and --dry-run after the command too, as the npm tool did."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing."),
        click.option("--verbose", is_flag=True, help="Print more details."),
        click.option(
            "--config", metavar="PATH", shell_complete=complete_files, help="Read this project file."
        ),
    ):
        command = option(command)
    return command


def verb_options(command: F) -> F:
    """Accept --json and --brief beside the global options: the verb's answer then is one object."""
    for name, text in (
        ("--brief", "As JSON in short: at most 1 KB about a run."),
        ("--json", "Answer in JSON, documented in docs/json.md."),
    ):
        option = click.option(name, is_flag=True, expose_value=False, callback=answers.begin, help=text)
        command = option(command)
    return global_options(command)


def globals_of(ctx: click.Context, config: str | None, verbose: bool, dry_run: bool) -> Globals:
    """Combine the options given before the command and after it."""
    before: dict[str, Any] = ctx.find_root().obj or {}
    path = config or before.get("config")
    answers.current().dry_run = dry_run = dry_run or bool(before.get("dry_run"))
    return Globals(Path(path) if path else None, verbose or bool(before.get("verbose")), dry_run)
