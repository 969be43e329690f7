"""Shows as JSON what `run` has queued, or would queue; documented in docs/json.md."""

from collections.abc import Sequence
from typing import Any

from backprop.cli.render.command_text import command_text
from backprop.cli.submit.recipe_view import goes_on_json, kinds_of, plan_json
from backprop.scheduler.spec import RunSpec


def queued_json(
    runs: Sequence[tuple[str | None, str, RunSpec]],
    group: str | None,
    notes: Sequence[str],
    warnings: Sequence[str],
    queued: bool = True,
) -> dict[str, Any]:
    """Return the object. `runs`: id (None where it has none yet), name and specification of each."""
    return {
        "queued": queued,
        "group": group,
        "runs": [{"id": run_id, "name": name} for run_id, name, _ in runs],
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
