"""Reads the options of `run` that say when a run may start: its turn, its dependencies and the rules of its group."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click
import msgspec

from backprop.cli.help.completion import complete_parents
from backprop.cli.options.numbers import Minutes
from backprop.cli.submit.names import checked
from backprop.scheduler.config.parsers import MINUTE_S, TEN_YEARS_MIN
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.spec import DependencyKind, GroupRules

F = TypeVar("F", bound=Callable[..., Any])

AFTER: Final[tuple[tuple[str, DependencyKind], ...]] = (
    ("after", "success"),
    ("after_any", "any"),
    ("after_fail", "fail"),
)
METRIC_LIMIT: Final = 128
_SHARE: Final = r"([0-9]{1,2}(?:\.[0-9]{1,4})?)%/([0-9]{1,6})"


def position_options(command: F) -> F:
    """Add --priority, --begin, --order, --hold, --after…, --keep, --group and the rules of a group."""
    for option in (
        click.option("--group-max-minutes", type=Minutes(), metavar="MINUTES",
                     help="Stop the group once its members have run for so long together; 90, 1h30m."),
        click.option("--until", metavar="GOAL",
                     help="Stop the rest of the group once a metric of a member meets this: 'val_bpb<0.98'."),
        click.option("--metric", metavar="NAME[:max]",
                     help="Metric that --keep-best compares.  [default: loss, lowest first]"),
        click.option("--keep-best", metavar="SHARE%/N",
                     help="After every N segments of each member of the group, stop all but the best SHARE."),
        click.option("--parallel", type=click.IntRange(1, 10_000), metavar="N",
                     help="Run at most N members of the group at once."),
        click.option("--group", metavar="NAME", help="Add it to this group (created if needed)."),
        click.option("--keep", is_flag=True,
                     help="Stay queued when --after can never be met.  [default: end as stopped]"),
        click.option("--after-fail", multiple=True, metavar="RUN,…", shell_complete=complete_parents,
                     help="Start when these have failed or stopped."),
        click.option("--after-any", multiple=True, metavar="RUN,…", shell_complete=complete_parents,
                     help="Start when these have ended, whatever the outcome."),
        click.option("--after", multiple=True, metavar="RUN,…", shell_complete=complete_parents,
                     help="Start when these have completed; runs or groups, repeatable."),
        click.option("--hold", is_flag=True, help="Queue it held; `backprop release` lets it start."),
        click.option("--order", type=click.Choice(["round-robin", "fifo"]), default="round-robin",
                     help="After a segment, go to the back of the queue, or keep its turn.  [default: round-robin]"),
        click.option("--begin", metavar="TIME",
                     help="Do not start before 22:00, tomorrow 6:00, +2h or 2030-01-31T22:00."),
        click.option("--priority", type=click.IntRange(-1_000_000, 1_000_000), default=0, metavar="N",
                     help="Start higher ones first.  [default: 0]"),
    ):  # fmt: skip
        command = option(command)
    return command


class RequestedPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position in the queue as the user asked for it. `after`: (run or group as typed, kind)."""

    priority: int = 0
    begin_s: float = 0.0
    held: bool = False
    keep: bool = False
    after: tuple[tuple[str, DependencyKind], ...] = ()


def requested_position(values: Mapping[str, Any], now_s: float) -> RequestedPosition:
    """Return the position that a command's parameters ask for. Raises BadCommand."""
    begin_s = 0.0
    if values["begin"] is not None:
        from backprop.cli.options.times import read_begin

        begin_s = read_begin(values["begin"], now_s)
    after: list[tuple[str, DependencyKind]] = [
        (name.strip(), kind)
        for option, kind in AFTER
        for text in values[option]
        for name in str(text).split(",")
    ]
    if any(not name for name, _ in after):
        raise BadCommand("--after has an empty name; give ids, names or groups, with commas between them")
    return RequestedPosition(
        priority=values["priority"],
        begin_s=begin_s,
        held=values["hold"],
        keep=values["keep"],
        after=tuple(after),
    )


def group_rules(name: str, values: Mapping[str, Any], at_once: int | None = None) -> GroupRules:
    """Return the group of that name with the rules that a command's parameters give it. Raises BadCommand.

    `at_once`: how many of an array may run at the same time.
    """
    parallel: int | None = values["parallel"]
    if parallel is not None and at_once is not None and parallel != at_once:
        raise BadCommand(f"--parallel {parallel} and --array …%{at_once} disagree; give one of them")
    rules = GroupRules(name=checked("--group", name), max_parallel=at_once if parallel is None else parallel)
    rules = msgspec.structs.replace(
        rules, until=_goal(values["until"]), max_total_s=_max_total_s(values["group_max_minutes"])
    )
    return _with_keep_best(rules, values["keep_best"], values["metric"])


def refuse_rules_without_group(values: Mapping[str, Any]) -> None:
    """Raise BadCommand for a rule of a group that is given with a run that has none."""
    _refuse_lone_metric(values["keep_best"], values["metric"])
    for name in ("keep_best", "until", "group_max_minutes"):
        if values[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise BadCommand(
                f"{option} is a rule for a group; give --group NAME, or --grid, --array or --params"
            )


def _goal(text: str | None) -> str | None:
    if text is None:
        return None
    from backprop.scheduler.outcome.group_budget import parse_goal

    try:
        return str(parse_goal(text))
    except ValueError as error:
        raise BadCommand(
            f"--until {text}: {error}; in quotes, since < and > are the shell's: --until 'val_bpb<0.98'"
        ) from None


def _max_total_s(minutes: float | None) -> float | None:
    if minutes is None:
        return None
    if not 0 < minutes <= TEN_YEARS_MIN:
        raise BadCommand(
            f"--group-max-minutes {minutes:g} is not above 0 and at most {TEN_YEARS_MIN}; give minutes, such as 480"
        )
    return minutes * MINUTE_S


def _with_keep_best(rules: GroupRules, best: str | None, metric: str | None) -> GroupRules:
    """Return the rules with `--keep-best 50%/3 --metric loss`: which members of the group go on."""
    _refuse_lone_metric(best, metric)
    if best is None:
        return rules
    match = re.fullmatch(_SHARE, best)
    if match is None or not 0 < float(match[1]) < 100 or not int(match[2]):
        raise BadCommand(
            f"--keep-best {best} is not SHARE%/SEGMENTS; 50%/3 keeps the better half after every three segments"
        )
    name, _, direction = (metric or "loss").partition(":")
    if direction not in ("", "min", "max") or not 0 < len(name) <= METRIC_LIMIT or not name.isprintable():
        raise BadCommand(f"--metric {metric} is not NAME, NAME:min or NAME:max")
    return msgspec.structs.replace(
        rules,
        keep_share=float(match[1]) / 100,
        keep_every=int(match[2]),
        keep_metric=name,
        keep_highest=direction == "max",
    )


def _refuse_lone_metric(best: str | None, metric: str | None) -> None:
    if best is None and metric is not None:
        raise BadCommand(
            "--metric needs --keep-best, which compares it; give both, such as: --keep-best 50%/3 --metric loss"
        )
