"""Which runs a command is about: RUN… (ids, names, beginnings of ids, groups) and filters, the same for every verb.

With filters or groups a verb says first how many runs it is about, and then which: nobody is asked anything, so that
it works in scripts; `--dry-run` shows it beforehand.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from backprop.cli.completion import complete_groups, complete_runs
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit.times import read_since
from backprop.scheduler.lifecycle import State

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen, Filters

F = TypeVar("F", bound=Callable[..., Any])

SHOWN: Final = 20
"""Lines after the count; all of them with --verbose."""
STATES: Final = tuple(state.value for state in State)


def filter_options(command: F) -> F:
    """--state, --name, --group, --since."""
    for option in (
        click.option("--since", metavar="TIME",
                     help="Queued since then: 2h (ago; w, d, h, m, s), 22:00, 2026-11-20, 2026-11-20T22:00."),
        click.option("--group", metavar="NAME", shell_complete=complete_groups, help="Members of this group."),
        click.option("--name", metavar="GLOB", help="With such a name: * ? [abc] as in a shell, in quotes."),
        click.option("--state", metavar="S,…", shell_complete=_complete_states,
                     help=f"In one of these states: {', '.join(STATES)}."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_arguments(command: F) -> F:
    """RUN… and the filters."""
    argument = click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
    return argument(filter_options(command))


def filters_of(values: Mapping[str, Any]) -> "Filters":
    """The filters among a command's parameters. Raises click.BadParameter."""
    from backprop.scheduler.store.reads.selection import Filters

    since = values["since"]
    return Filters(
        states=_states(values["state"]) if values["state"] is not None else (),
        name=values["name"],
        group=values["group"],
        since_s=read_since(since, time.time()) if since is not None else None,
    )


@dataclass(frozen=True)
class Selection:
    """`able`: those the verb applies to. `refused`: named one by one, but their state does not allow it. `bulk`: a
    group or a filter chose them, so that a count comes first."""

    able: "list[Chosen]"
    refused: "list[Chosen]"
    bulk: bool


def pick(
    ctx: click.Context,
    database: "Database",
    words: Sequence[str],
    filters: "Filters",
    states: Collection[State],
    done: str,
    named: Collection[State] | None = None,
) -> Selection:
    """The runs a verb is about. `states`: those it applies to; runs in others are passed over, but refused when they
    were named themselves. `named`: the states it applies to in those, if others. `done`: the verb as in "can be
    stopped".

    Raises UnknownRun when that is none, AmbiguousRun, click.UsageError when neither runs nor filters are given.
    """
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.store.reads import selection

    if not words and not filters.given:
        raise click.UsageError("which runs? Give RUN (an id, a name or a group) or a filter", ctx)
    found = selection.choose(database, words, filters)
    if not found:
        raise UnknownRun(f"no run matches {_told(words, filters)}; see: backprop list")
    named = states if named is None else named
    able = [one for one in found if one.state in (named if one.named else states)]
    refused = [one for one in found if one.named and one.state not in named]
    if not able and not refused:
        counts = ", ".join(
            f"{count} {state}" for state in STATES if (count := sum(one.state == state for one in found))
        )
        raise UnknownRun(f"no run that matches {_told(words, filters)} can be {done}: {counts}")
    return Selection(able, refused, filters.given or any(not one.named for one in found))


def report(
    done: "Sequence[Chosen]", head: str, line: "Callable[[Chosen], str]", *, bulk: bool, every: bool = False
) -> None:
    """Say what was done: with `bulk` the count first, and after twenty lines how many more, unless `every`."""
    if bulk:
        click.echo(head)
    shown = done if every or not bulk else done[:SHOWN]
    for one in shown:
        click.echo(f"{'  ' if bulk else ''}{line(one)}")
    if len(done) > len(shown):
        click.echo(f"  … and {len(done) - len(shown)} more")


def rehearse(picked: Selection, verb: str, why: str, code: int) -> int:
    """`--dry-run`: all that would be done, one line a run, and what would be refused; the exit code."""
    report(
        picked.able,
        f"would {verb} {counted(len(picked.able))}",
        lambda one: f"would {verb} {who(one)}, {one.state}",
        bulk=picked.bulk,
        every=True,
    )
    return refuse(picked.refused, why, code)


def refuse(refused: "Sequence[Chosen]", why: str, code: int) -> int:
    """Say which runs were not touched; the exit code, 0 when there is none."""
    for one in refused:
        click.echo(f"backprop: run {one.id} is {one.state}; {why}", err=True)
    return code if refused else 0


def counted(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def who(one: "Chosen") -> str:
    return f"{safe(one.name)} ({one.id})"


def _states(text: str) -> tuple[State, ...]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in STATES]
    if wrong or not names:
        raise click.BadParameter(
            f"{', '.join(wrong) or 'nothing'} is no state; the states are {', '.join(STATES)}",
            param_hint="--state",
        )
    return tuple(State(name) for name in dict.fromkeys(names))


def _told(words: Sequence[str], filters: "Filters") -> str:
    given = [
        *words,
        *([f"--state {','.join(filters.states)}"] if filters.states else []),
        *([f"--name {filters.name}"] if filters.name is not None else []),
        *([f"--group {filters.group}"] if filters.group is not None else []),
        *([f"--since {datetime.fromtimestamp(filters.since_s):%Y-%m-%dT%H:%M}"] if filters.since_s else []),
    ]
    return " ".join(given)


def _complete_states(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{state}" for state in STATES if state.startswith(last)]
