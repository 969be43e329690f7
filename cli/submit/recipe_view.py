"""Shows what was recognised in a command and how the run will be resumed, in words and as JSON."""

import glob
import os
import shlex
from collections.abc import Sequence
from typing import Any

from backprop.scheduler.spec import Plan, RunSpec


def lines(spec: RunSpec) -> list[str]:
    """Return one or two lines for `run`; none for a command without a recipe and without a pattern of the user's."""
    plan = spec.plan
    if plan is None or (plan.recipe == "none" and not plan.globs):
        return []
    what = f"recipe {plan.recipe}" if plan.recipe != "none" else "no recipe"
    why = f" ({plan.why})" if plan.why else ""
    if plan.resumes == "none":
        return [f"{what}{why}: it cannot be resumed, so it runs for one timebox", *_note(plan)]
    return [f"{what}{why}: {_where(spec, plan)}; on a resume: {resume_text(spec)}", *_note(plan)]


def pairs(spec: RunSpec) -> list[tuple[str, str]]:
    """Return (label, text) pairs for `show` and `--dry-run`."""
    plan = spec.plan
    if plan is None or (plan.recipe == "none" and not plan.globs):
        return [("recipe", "none")]
    rows = [("recipe", f"{plan.recipe}: {plan.why}" if plan.why else plan.recipe)]
    if plan.globs:
        rows.append(("checkpoints", ", ".join(_short(each, spec.cwd) for each in plan.globs)))
    facts = [f"whole with {' and '.join(plan.needs)}"] if plan.needs else []
    facts += ["saved in place; Backprop keeps the last two good copies"] if plan.in_place else []
    facts += ["saved when the script is asked to stop"] if plan.saves_on_signal else []
    if facts:
        rows.append(("they are", "; ".join(facts)))
    return [*rows, *(("note", plan.note) for _ in _note(plan))]


def resume_text(spec: RunSpec) -> str:
    """Return what a resume adds to the command, with CHECKPOINT for the path."""
    from backprop.worker.checkpoints.resume import command_line

    plan = spec.plan
    if plan is not None and spec.resume_arg == "auto" and plan.resumes == "none":
        return "it cannot be resumed"
    words = command_line(spec, "CHECKPOINT")
    if words == spec.argv:
        again = plan is not None and plan.resumes == "rerun"
        return (
            "the same command, which finds its checkpoint itself"
            if again
            else "nothing is appended; the path is in BACKPROP_RESUME_FROM"
        )
    at = len(spec.argv) if plan is None or plan.resume_at is None else plan.resume_at
    return shlex.join(words[at : at + len(words) - len(spec.argv)])


def plan_json(plan: Plan | None) -> dict[str, Any] | None:
    """Return the plan as in docs/json.md; None for a run that was queued before there were recipes."""
    if plan is None:
        return None
    return {
        "recipe": plan.recipe,
        "why": plan.why,
        "globs": list(plan.globs),
        "needs": list(plan.needs),
        "in_place": plan.in_place,
        "resumes": plan.resumes,
        "resume_words": list(plan.resume_words),
        "saves_on_signal": plan.saves_on_signal,
        "note": plan.note or None,
    }


def _where(spec: RunSpec, plan: Plan) -> str:
    if not plan.globs:
        return "checkpoints unknown"
    first, *others = plan.globs
    more = f" and {len(others)} more" if others else ""
    return f"checkpoints {_short(first, spec.cwd)}{more}"


def _note(plan: Plan) -> Sequence[str]:
    return [f"note: {plan.note}"] if plan.note else []


def _short(pattern: str, cwd: str) -> str:
    """Return the pattern relative to `cwd` if it lies inside."""
    inside = f"{glob.escape(cwd)}{os.sep}"
    return pattern.removeprefix(inside)
