"""`backprop groups [NAME]`: shows progress and rules of groups, and which members early stopping ended."""

import contextlib
from typing import TYPE_CHECKING

import click
import msgspec

from backprop.cli.context import open_existing
from backprop.cli.render.json_views import number, print_json

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.spec import GroupRules
    from backprop.scheduler.store.connection import Database


@click.command(name="groups")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(name: str | None, as_json: bool) -> None:
    """List groups, newest first. With NAME: the rules and rankings of one group."""
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.store import budgets, groups

    home, database = open_existing()
    known = dict(groups.all_names(database)) if database is not None else {}
    if name is not None and name not in known:
        raise UnknownRun(f"unknown group {name}; see: backprop groups")
    if database is None or not known:
        if as_json:
            print_json([])
        else:
            click.echo("no groups yet; create one with: backprop run SCRIPT --grid lr=1e-3,1e-4", err=True)
        return
    rules, over = groups.all_rules(database), budgets.over(database)
    wanted = [name] if name is not None else list(known)
    views = [
        _View(
            name=one,
            members=known[one],
            counts=groups.counts(database, one),
            max_parallel=rules[one].max_parallel if one in rules else None,
            keep_best=_keep(rules.get(one)),
            until=rules[one].until if one in rules else None,
            max_minutes=_minutes(rules[one].max_total_s) if one in rules else None,
            used_minutes=_used_min(home, database, rules.get(one)),
            over=over.get(one),
            rankings=_rankings(database, one) if name is not None else None,
        )
        for one in wanted
    ]
    if as_json:
        print_json(msgspec.to_builtins(views if name is None else views[0]))
    else:
        _print(views)


class _Ranked(msgspec.Struct, frozen=True, kw_only=True):
    round: int
    id: str
    place: int
    value: float | None
    kept: bool


class _View(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    members: int
    counts: dict[str, int]
    max_parallel: int | None
    keep_best: str | None
    until: str | None
    max_minutes: float | None
    used_minutes: float | None
    over: str | None
    rankings: list[_Ranked] | None


def _rankings(database: "Database", name: str) -> list[_Ranked]:
    from backprop.scheduler.store import groups

    return [
        _Ranked(round=number, id=one.run_id, place=one.place, value=one.value, kept=one.kept)
        for number, one in groups.rankings(database, name)
    ]


def _keep(rules: "GroupRules | None") -> str | None:
    if rules is None or rules.keep_share is None:
        return None
    which = "highest" if rules.keep_highest else "lowest"
    return f"{rules.keep_share * 100:g}%/{rules.keep_every} by the {which} {rules.keep_metric}"


def _minutes(seconds: float | None) -> float | None:
    return round(seconds / 60, 3) if seconds is not None else None


def _used_min(home: "Home", database: "Database", rules: "GroupRules | None") -> float | None:
    """Return for how long the members of a group that has a limit have run together."""
    from backprop.scheduler.store import budgets
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor import segment_files

    if rules is None or rules.max_total_s is None:
        return None
    used_s = budgets.ran_s(database, rules.name)
    for run in queries.live_runs(database):
        if run.group_name == rules.name:
            with contextlib.suppress(OSError):
                used_s += segment_files.running_s(home.segment_folder(run.id, run.segment)) or 0.0
    return _minutes(used_s)


def _ends(view: _View) -> str:
    """Return when a group ends, or why it has."""
    from backprop.scheduler.outcome.group_budget import rule_words

    if view.over is not None:
        return view.over
    limit_s = view.max_minutes * 60 if view.max_minutes is not None else None
    used = f", {view.used_minutes:g} used" if view.used_minutes is not None else ""
    return f"{rule_words(view.until, limit_s) or '-'}{used}"


def _print(views: list[_View]) -> None:
    from backprop.cli.render.tables import print_table

    ending = any(view.until is not None or view.max_minutes is not None for view in views)
    rows = [
        (
            view.name,
            str(view.members),
            ", ".join(f"{count} {state}" for state, count in view.counts.items()),
            str(view.max_parallel or "-"),
            view.keep_best or "-",
            *([_ends(view)] if ending else []),
        )
        for view in views
    ]
    columns = ("GROUP", "RUNS", "STATES", "AT ONCE", "KEEPS", *(["ENDS AT"] if ending else []))
    print_table(columns, rows, ("RUNS", "AT ONCE"))
    if views[0].rankings:
        click.echo()
        places = [
            (str(one.round), str(one.place), one.id, number(one.value), "goes on" if one.kept else "stopped")
            for one in views[0].rankings
        ]
        print_table(("ROUND", "PLACE", "ID", "VALUE", ""), places, ("ROUND", "PLACE", "VALUE"))
