"""Builds the JSON of a report, see docs/json.md."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backprop.cli.render.answers import BRIEF_TEXT, NAME_LIMIT, short
from backprop.cli.render.json_views import iso
from backprop.cli.report.books import Account, Book
from backprop.cli.report.needs import NeedOfUser
from backprop.cli.report.night import Night
from backprop.cli.report.readings import Readings
from backprop.cli.report.sweep import SweepParameter

BRIEF_COUNT: Final = 5


def view(
    night: Night, needs: Sequence[NeedOfUser], readings: Sequence[Readings], sweep: Sequence[SweepParameter]
) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "since": iso(night.since_s),
        "until": iso(night.until_s),
        "wall_s": round(night.axis.length_s),
        "group": night.group,
        "counts": {state.value: count for state, count in night.counts.items()},
        "needs": [{"title": one.title, "text": one.text, "commands": list(one.commands)} for one in needs],
        "units": [_unit(one, readings) for one in night.books],
        "gaps": [
            {
                "unit": one.unit.label,
                "from": iso(night.axis.wall_s(one.slice.from_s)),
                "to": iso(night.axis.wall_s(one.slice.to_s)),
                "seconds": one.slice.seconds,
                "rules": list(one.slice.rules),
                "text": one.text,
            }
            for one in night.gaps
        ],
        "ranking": {
            "metric": night.ranking.metric,
            "highest": night.ranking.highest,
            "runs": [
                {"id": run.id, "name": run.name, "state": run.state.value, "value": value}
                for run, value in night.ranking.places
            ],
        },
        "parameters": [
            {
                "name": one.name,
                "values": [
                    {"value": row.value, "runs": row.runs, "best": row.best, "median": row.median}
                    for row in one.marginals
                ],
            }
            for one in sweep
        ],
        "disk_bytes": night.disk.total_bytes,
        "disk_whole": night.disk.whole,
        "runs_whole": night.whole,
    }


def brief(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report in short: the first of what needs the user, the best runs, the time of each unit."""
    ranking = view["ranking"]
    return {
        **{name: view[name] for name in ("since", "until", "group", "counts")},
        "needs": [
            {"title": short(one["title"], BRIEF_TEXT), "text": short(one["text"], BRIEF_TEXT)}
            for one in view["needs"][:BRIEF_COUNT]
        ],
        "ranking": ranking
        | {"runs": [one | {"name": short(one["name"], NAME_LIMIT)} for one in ranking["runs"][:BRIEF_COUNT]]},
        "units": [
            {
                "label": one["label"],
                "training_s": one["seconds"][Account.TRAINING.value],
                "idle_s": one["seconds"][Account.IDLE.value],
            }
            for one in view["units"]
        ],
    }


def _unit(book: Book, readings: Sequence[Readings]) -> dict[str, Any]:
    idle: dict[str, int] = {}
    for one in book.slices:
        if one.account is Account.IDLE:
            why = " + ".join(one.rules)
            idle[why] = idle.get(why, 0) + one.seconds
    read = next((one for one in readings if one.unit == book.unit), None)
    return {
        "label": book.unit.label,
        "uuid": book.unit.uuid,
        "name": book.unit.name or None,
        "seconds": {account.value: book.total(account) for account in Account},
        "idle_s": idle,
        "peak_c": read.peak_c if read is not None else None,
        "limit_c": read.limit_c if read is not None else None,
        "peak_mib": read.peak_mib if read is not None else None,
        "total_mib": read.total_mib if read is not None else None,
    }
