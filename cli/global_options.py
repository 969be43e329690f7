"""Reads the options that stand before or after every command: --config, --verbose and --dry-run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from backprop.cli.completion import complete_files

F = TypeVar("F", bound=Callable[..., Any])


class Globals(msgspec.Struct, frozen=True):
    config: Path | None
    verbose: bool
    dry_run: bool


def global_options(command: F) -> F:
    """Accept --config, --verbose and --dry-run after the command too, as the original did."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing."),
        click.option("--verbose", is_flag=True, help="Say more about what is done."),
        click.option(
            "--config", metavar="PATH", shell_complete=complete_files, help="Read this project file."
        ),
    ):
        command = option(command)
    return command


def globals_of(ctx: click.Context, config: str | None, verbose: bool, dry_run: bool) -> Globals:
    """Those given before the command and after it, together."""
    before: dict[str, Any] = ctx.find_root().obj or {}
    path = config or before.get("config")
    return Globals(
        Path(path) if path else None,
        verbose or bool(before.get("verbose")),
        dry_run or bool(before.get("dry_run")),
    )
