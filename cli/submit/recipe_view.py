"""Shows what was recognised in a command and how the run will be resumed, in words and as JSON."""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

from backprop.cli.submit.goes_on import GoesOn, goes_on_by, kind_of, short, uses_gpu
from backprop.scheduler.home.credentials import masked_words
from backprop.scheduler.spec import Plan, RunSpec

MOST_KINDS: Final = 6


def lines(spec: RunSpec) -> list[str]:
    """Return for `run` how the run goes on, and what was recognised in its command."""
    said, *typed = _apart(spec)
    return [f"goes on by: {said}", *(f"  {each}" for each in typed), *_recognised(spec)]


def _apart(spec: RunSpec) -> list[str]:
    """Return how it goes on, and apart from it what may be typed: so that the terminal's edge breaks no command."""
    told = _goes_on(spec)
    said = told.text.removesuffix(told.to_type).rstrip()
    return [said, told.to_type] if told.to_type else [said]


def lines_of_many(specs: Sequence[RunSpec]) -> list[str]:
    """Return the same for the runs of one command, each kind once; paths are those of its first run."""
    kinds = kinds_of(specs)
    told: list[str] = []
    for first, count in kinds[:MOST_KINDS]:
        goes_on, *recognised = lines(first)
        several = (
            f"{count} run{'s' if count != 1 else ''} of {PurePath(first.script or first.program).name}: "
        )
        told += [f"{several if len(kinds) > 1 else ''}{goes_on}", *recognised]
    if len(kinds) > MOST_KINDS:
        told.append(f"… and {len(kinds) - MOST_KINDS} more kinds of run; see: backprop show RUN")
    return told


def kinds_of(specs: Sequence[RunSpec]) -> list[tuple[RunSpec, int]]:
    """Return the first run of each kind, and how many there are of that kind."""
    kinds: dict[tuple[object, ...], tuple[RunSpec, int]] = {}
    for spec in specs:
        kind = kind_of(spec)
        first, count = kinds.get(kind, (spec, 0))
        kinds[kind] = (first, count + 1)
    return list(kinds.values())


def goes_on_json(spec: RunSpec) -> dict[str, str]:
    """Return `goes_on_by` as in docs/json.md."""
    goes_on = _goes_on(spec)
    return {"way": goes_on.way, "text": goes_on.text}


def _goes_on(spec: RunSpec) -> GoesOn:
    """Return how it goes on, by what is known of this machine without asking it."""
    from backprop.scheduler.home import layout
    from backprop.worker.executor.vram import trials

    vram = ""
    with contextlib.suppress(OSError):
        vram = trials.words_of_start(layout.locate()) if uses_gpu(spec) else ""
    return goes_on_by(spec, vram)


def pairs(spec: RunSpec) -> list[tuple[str, str]]:
    """Return (label, text) pairs for `show` and `--dry-run`."""
    plan = spec.plan
    goes_on = list(zip(("goes on by", ""), _apart(spec), strict=False))
    if plan is None or (plan.recipe == "none" and not plan.globs):
        return [*goes_on, ("recipe", "none")]
    why = _why(spec, plan)
    rows = [*goes_on, ("recipe", f"{plan.recipe}: {why}" if why else plan.recipe)]
    if plan.globs:
        rows.append(("checkpoints", ", ".join(short(each, spec.cwd) for each in plan.globs)))
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
    if spec.resume_arg == "auto" and spec.cannot_resume:
        return "it cannot be resumed"
    if plan is not None and plan.integration and spec.attaches:
        return "nothing is appended; the integration attached at launch hands the checkpoint over"
    words = command_line(spec, "CHECKPOINT")
    if words == spec.argv:
        again = plan is not None and plan.resumes == "rerun"
        return (
            "the same command, which finds its checkpoint itself"
            if again
            else "nothing is appended; the path is in BACKPROP_RESUME_FROM"
        )
    at = len(spec.argv) if plan is None or plan.resume_at is None else plan.resume_at
    return shlex.join(masked_words(words[at : at + len(words) - len(spec.argv)]))


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
        "guessed": plan.guessed,
        "integration": plan.integration or None,
    }


def _why(spec: RunSpec, plan: Plan) -> str:
    """Return what the recipe was recognised by. That it has no way to resume is no matter where ours is attached."""
    return plan.why.partition("; ")[0] if plan.integration and spec.attaches else plan.why


def _recognised(spec: RunSpec) -> list[str]:
    """Return one or two lines; none for a command without a recipe and without a pattern of the user's."""
    plan = spec.plan
    if plan is None or (plan.recipe == "none" and not plan.globs):
        return []
    what = f"recipe {plan.recipe}" if plan.recipe != "none" else "no recipe"
    why = f" ({text})" if (text := _why(spec, plan)) else ""
    return [f"{what}{why}: {_where(spec, plan)}", *_note(plan)]


def _where(spec: RunSpec, plan: Plan) -> str:
    if not plan.globs:
        if spec.attaches and plan.integration:
            return "checkpoints as the integration tells"
        return "checkpoints are looked for as it saves" if plan.guessed else "checkpoints unknown"
    first, *others = plan.globs
    more = f" and {len(others)} more" if others else ""
    return f"checkpoints {short(first, spec.cwd)}{more}"


def _note(plan: Plan) -> Sequence[str]:
    return [f"note: {plan.note}"] if plan.note else []
