"""`backprop groups [NAME]`: how far groups are, their rules, and who was stopped for its rank."""

import click

from backprop.cli.safe import safe
from backprop.cli.session import open_existing
from backprop.cli.views import number, print_json


@click.command(name="groups")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(name: str | None, as_json: bool) -> None:
    """List groups, the newest first; with NAME, one group's rules and rankings."""
    from backprop.scheduler import groups
    from backprop.scheduler.errors import UnknownRun

    _, database = open_existing()
    known = dict(groups.all_names(database)) if database is not None else {}
    if name is not None and name not in known:
        raise UnknownRun(f"no group is named {name}; see: backprop groups")
    if database is None or not known:
        if as_json:
            print_json([])
        else:
            click.echo("no groups yet; make one with: backprop run SCRIPT --grid lr=1e-3,1e-4", err=True)
        return
    rules = groups.all_rules(database)
    wanted = [name] if name is not None else list(known)
    views = [
        {
            "name": one,
            "members": known[one],
            "counts": groups.counts(database, one),
            "max_parallel": rules[one].max_parallel if one in rules else None,
            "keep_best": _keep(rules.get(one)),
            "rankings": [
                {"round": round_number, "id": place.run_id, "place": place.place, "value": place.value,
                 "kept": place.kept}
                for round_number, place in groups.rankings(database, one)
            ] if name is not None else None,
        }
        for one in wanted
    ]  # fmt: skip
    if as_json:
        print_json(views if name is None else views[0])
    else:
        _print(views, name)


def _keep(rules: object) -> str | None:
    from backprop.scheduler.spec import Group

    if not isinstance(rules, Group) or rules.keep_share is None:
        return None
    which = "highest" if rules.keep_highest else "lowest"
    return f"{rules.keep_share * 100:g}%/{rules.keep_every} by the {which} {rules.keep_metric}"


def _print(views: list[dict[str, object]], name: str | None) -> None:
    from backprop.cli.table import print_table

    rows = [
        (
            str(view["name"]),
            str(view["members"]),
            _counts(view["counts"]),
            str(view["max_parallel"] or "-"),
            str(view["keep_best"] or "-"),
        )
        for view in views
    ]
    print_table(("GROUP", "RUNS", "STATES", "AT ONCE", "KEEPS"), rows, ("RUNS", "AT ONCE"))
    rankings = views[0]["rankings"]
    if name is None or not isinstance(rankings, list) or not rankings:
        return
    click.echo()
    places = [
        (
            str(one["round"]),
            str(one["place"]),
            safe(str(one["id"])),
            number(one["value"]),
            "goes on" if one["kept"] else "stopped",
        )
        for one in rankings  # pyright: ignore[reportUnknownVariableType]
    ]
    print_table(("ROUND", "PLACE", "ID", "VALUE", ""), places, ("ROUND", "PLACE", "VALUE"))


def _counts(counts: object) -> str:
    return (
        ", ".join(f"{count} {state}" for state, count in counts.items()) if isinstance(counts, dict) else ""
    )  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
