"""Shows as JSON what `run` has queued, or would queue; documented in docs/json.md."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import click

from backprop.cli.render.answers import BRIEF_TEXT, KEY_LIMIT, NAME_LIMIT, short
from backprop.cli.render.json_views import json_text
from backprop.cli.render.terminal_text import command_text
from backprop.cli.submit.recipe_view import goes_on_json, kinds_of, plan_json
from backprop.scheduler.spec import RunSpec

WARNINGS, WARNING_LIMIT = 2, 140
LISTED = 50
"""Runs, with --brief: those of a sweep have a group."""


def queued_json(
    runs: Sequence[tuple[str | None, str, RunSpec]],
    group: str | None,
    notes: Sequence[str],
    warnings: Sequence[str],
    queued: bool = True,
    existing: Collection[str | None] = (),
) -> dict[str, Any]:
    """Return the object. `runs`: id (None where it has none yet), name and specification of each. `existing`: ids of
    those that were there already."""
    return {
        "queued": queued,
        "group": group,
        "existing": all(run_id in existing for run_id, _, _ in runs),
        "runs": [
            {"id": run_id, "name": name, "key": spec.key, "existing": run_id in existing}
            for run_id, name, spec in runs
        ],
        "kinds": [
            {
                "runs": count,
                "command": command_text(spec),
                "goes_on_by": goes_on_json(spec),
                "plan": plan_json(spec.plan),
            }
            for spec, count in kinds_of([spec for _, _, spec in runs])
        ],
        "notes": list(notes),
        "warnings": list(warnings),
    }


def queued_text(view: dict[str, Any]) -> str:
    """Return the object as text: with --brief what matters to a program, on one line, about 1 KB for one run."""
    if not click.get_current_context().params["brief"]:
        return json_text(view)
    warnings = [short(line, WARNING_LIMIT) for line in view["warnings"][:WARNINGS]]
    few = {name: view[name] for name in ("queued", "existing", "group")}
    texts = {"name": NAME_LIMIT, "key": KEY_LIMIT}
    runs = [
        run | {field: short(run[field], most) for field, most in texts.items()}
        for run in view["runs"][:LISTED]
    ]
    more = len(view["runs"][LISTED:])
    goes_on_by = view["kinds"][0]["goes_on_by"] if view["kinds"] else None
    if goes_on_by is not None:
        goes_on_by = goes_on_by | {"text": short(goes_on_by["text"], BRIEF_TEXT)}
    return json.dumps(few | {"runs": runs, "more": more, "goes_on_by": goes_on_by, "warnings": warnings})
