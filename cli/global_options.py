"""Reads the options that stand before or after every command: --config, --verbose and --dry-run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from backprop.cli.help.completion import complete_files

F = TypeVar("F", bound=Callable[..., Any])


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


def globals_of(ctx: click.Context, config: str | None, verbose: bool, dry_run: bool) -> Globals:
    """Combine the options given before the command and after it."""
    before: dict[str, Any] = ctx.find_root().obj or {}
    path = config or before.get("config")
    return Globals(
        Path(path) if path else None,
        verbose or bool(before.get("verbose")),
        dry_run or bool(before.get("dry_run")),
    )
