"""What every command needs: the home, the database, and the options that stand before or after a command."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from backprop.cli.completion import complete_files
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database

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


def open_home() -> "tuple[Home, Database]":
    """The home, created if need be, and its database. Raises HomeRefused, DatabaseRefused, DatabaseBusy."""
    from backprop.scheduler.store.connection import open_database

    home = layout.ensure(layout.locate())
    return home, open_database(home)


def open_existing() -> "tuple[Home, Database | None]":
    """As `open_home`, but creates nothing: None where nothing was ever queued."""
    from backprop.scheduler.store.connection import open_database

    home = layout.locate()
    if not layout.check(home) or not home.database.exists():
        return home, None
    return home, open_database(home)


def need_existing() -> "tuple[Home, Database]":
    """As `open_existing`; raises UnknownRun where nothing was ever queued."""
    from backprop.scheduler.errors import UnknownRun

    home, database = open_existing()
    if database is None:
        raise UnknownRun(f"nothing has been queued in {home.root} yet; begin with: backprop run SCRIPT")
    return home, database
