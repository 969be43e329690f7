"""Completes runs by id and name, groups and files for a shell. Silent on any error, and creates or changes nothing."""

import contextlib
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

NEWEST: Final = 200


def complete_runs(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Return ids, names and groups that begin with `incomplete`, of the newest runs."""
    from click.shell_completion import CompletionItem

    items: dict[str, CompletionItem] = {}
    for run_id, name, state, group in _newest():
        for text, description in (
            (run_id, f"{name}, {state}"),
            (name, f"{run_id}, {state}"),
            (group, "group"),
        ):
            if text is not None and text.startswith(incomplete):
                items.setdefault(text, CompletionItem(text, help=description))
    return list(items.values())


def complete_groups(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Return groups that begin with `incomplete`, of the newest runs."""
    from click.shell_completion import CompletionItem

    groups = dict.fromkeys(group for *_, group in _newest() if group is not None)
    return [CompletionItem(group) for group in groups if group.startswith(incomplete)]


def complete_parents(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """As `complete_runs`, for the part after the last comma."""
    from click.shell_completion import CompletionItem

    before, comma, last = incomplete.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{item.value}", help=item.help)
        for item in complete_runs(_ctx, _param, last)
    ]


def complete_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Return a request to the shell to complete file names itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _newest() -> list[tuple[str, str, str, str | None]]:
    """Return (id, name, state, group) of the newest runs; nothing on any error."""
    from backprop.cli.context import open_existing
    from backprop.scheduler.store.reads import listing

    # A half-typed line is not the place to report an error.
    with contextlib.suppress(Exception):
        _, database = open_existing()
        if database is not None:
            return [
                (run_id, name, state.value, group)
                for run_id, name, state, group in listing.newest(database, NEWEST)
            ]
    return []
