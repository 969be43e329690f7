"""Selects the runs that a command applies to: RUN… (ids, names, beginnings of ids, groups) and filters.

With filters or groups a command first prints how many runs it changed, then which. It never asks for confirmation, so
that it works in scripts; `--dry-run` shows the selection beforehand.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from backprop.cli.context import tell
from backprop.cli.help.completion import complete_groups, complete_runs
from backprop.cli.options.times import read_since
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.lifecycle import State

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.filters import Filters
    from backprop.scheduler.store.reads.selection import Chosen

F = TypeVar("F", bound=Callable[..., Any])

SHOWN: Final = 20
"""Lines printed after the count; --verbose prints all."""
STATES: Final = tuple(state.value for state in State)


def filter_options(command: F) -> F:
    """Add --state, --name, --group and --since."""
    for option in (
        click.option("--since", metavar="TIME",
                     help="Queued since then: 2h (ago; w, d, h, m, s), 22:00, 2026-11-20, 2026-11-20T22:00."),
        click.option("--group", metavar="NAME", shell_complete=complete_groups, help="Members of this group."),
        click.option("--name", metavar="GLOB", help="Name matches this pattern: * ? [abc] as in a shell, in quotes."),
        click.option("--state", metavar="S,…", shell_complete=_complete_states,
                     help=f"In one of these states: {', '.join(STATES)}."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_arguments(command: F) -> F:
    """Add RUN… and the filters."""
    argument = click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
    return argument(filter_options(command))


def filters_of(values: Mapping[str, Any]) -> "Filters":
    """Return the filters among a command's parameters. Raises click.BadParameter."""
    from backprop.scheduler.store.reads.filters import Filters

    since = values["since"]
    return Filters(
        states=_states(values["state"]) if values["state"] is not None else (),
        name=values["name"],
        group=values["group"],
        since_s=read_since(since, time.time()) if since is not None else None,
    )


def filters_or_all(values: Mapping[str, Any], states: Collection[State]) -> "Filters":
    """As `filters_of`; those `states` where none is given. Empty for no such default."""
    filters = filters_of(values)
    return (
        msgspec.structs.replace(filters, states=tuple(states)) if states and not filters.states else filters
    )


class Selection(msgspec.Struct, frozen=True):
    """`able`: runs the command applies to. `refused`: runs that were named themselves, but whose state does not allow
    it. `bulk`: a group or a filter selected some, so a count is printed first."""

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
    """Return the runs that a command applies to.

    `states`: the states it applies to. A run in another state is skipped, or refused if it was named itself. `named`:
    the states for runs that were named themselves, where they differ. `done`: the verb as in "can be stopped".

    Raises UnknownRun when no run is left, AmbiguousRun, and click.UsageError when neither runs nor filters are given.
    """
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.store.reads import selection

    if not words and not filters.given:
        raise click.UsageError(
            "no runs given: name one (id, name or group) or use a filter such as --state failed", ctx
        )
    answers.current().database = database
    matches = selection.choose(database, words, filters)
    if not matches:
        raise UnknownRun(f"no run matches {_described(words, filters)}; see: backprop list")
    named = states if named is None else named
    able = [run for run in matches if run.state in (named if run.named else states)]
    refused = [run for run in matches if run.named and run.state not in named]
    if not able and not refused:
        counts = ", ".join(
            f"{count} {state}" for state in STATES if (count := sum(run.state == state for run in matches))
        )
        raise UnknownRun(f"no run that matches {_described(words, filters)} can be {done}: {counts}")
    return Selection(able, refused, filters.given or any(not run.named for run in matches))


def by_id(database: "Database", run_id: str) -> "Chosen":
    """Return the run with this id. Raises UnknownRun."""
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.store.reads import selection
    from backprop.scheduler.store.reads.filters import NO_FILTERS

    found = selection.choose(database, [run_id], NO_FILTERS)
    if [one.id for one in found] != [run_id]:
        raise UnknownRun(f"run {run_id} was removed meanwhile")
    return found[0]


def report(
    done: "Sequence[Chosen]",
    head: str,
    line: "Callable[[Chosen], str]",
    *,
    bulk: bool,
    every: bool = False,
    rehearsed: bool = False,
) -> None:
    """Print what was done, one `line` per run. `bulk`: print `head` first, and at most `SHOWN` lines unless `every`.
    `rehearsed`: it would be done. Raises OutputLost when it was done and cannot be said."""
    answer = answers.current()
    answer.touch(done)
    if answer.speaks:
        click.echo(head)
        return
    shown = done if every or not bulk else done[:SHOWN]
    lines = [head] if bulk else []
    lines += [f"{'  ' if bulk else ''}{line(run)}" for run in shown]
    if len(done) > len(shown):
        lines.append(f"  … and {len(done) - len(shown)} more")
    if lines and rehearsed:
        click.echo("\n".join(lines))
    elif lines:
        tell("\n".join(lines), head if len(lines) > 1 else None)


def conclude(
    picked: Selection,
    done: "Sequence[Chosen]",
    head: str,
    line: "Callable[[Chosen], str]",
    why: str,
    *,
    every: bool = False,
) -> int:
    """Print what was done and which runs were left unchanged; return the exit code. `head`: with {} for how many were
    done. `why`: says what the state of the others does not allow. Raises OutputLost."""
    from backprop.scheduler.errors import IllegalMove

    report(done, head.format(counted(len(done))), line, bulk=picked.bulk, every=every)
    ids = {run.id for run in done}
    late = [run for run in picked.able if run.id not in ids]
    return refuse([*picked.refused, *late], why, IllegalMove.exit_code)


def rehearse(picked: Selection, verb: str, why: str, code: int) -> int:
    """Print what a command would do and would refuse, one line per run; return the exit code."""
    report(
        picked.able,
        f"would {verb} {counted(len(picked.able))}",
        lambda run: f"would {verb} {who(run)}, {run.state}",
        bulk=picked.bulk,
        every=True,
        rehearsed=True,
    )
    return refuse(picked.refused, why, code)


def refuse(refused: "Sequence[Chosen]", why: str, code: int) -> int:
    """Print which runs were left unchanged; return the exit code, 0 when there is none."""
    for run in refused:
        answers.refuse(run.id, f"run {run.id} is {run.state}; {why}")
    return code if refused else 0


def counted(count: int) -> str:
    """Return "1 run" or "2 runs"."""
    return f"{count} run{'' if count == 1 else 's'}"


def who(run: "Chosen") -> str:
    """Return "name (id)"."""
    return f"{safe(run.name)} ({run.id})"


def _states(text: str) -> tuple[State, ...]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STATES]
    if unknown or not names:
        named = f"unknown state {', '.join(unknown)}" if unknown else "no state given"
        raise click.BadParameter(f"{named}; use one or more of {', '.join(STATES)}", param_hint="--state")
    return tuple(State(name) for name in dict.fromkeys(names))


def _described(words: Sequence[str], filters: "Filters") -> str:
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
