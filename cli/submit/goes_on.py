"""Words how a run goes on after its timebox: the way it resumes, or in place where none is known. Pure.

Everything that shows a run says it by this: `run`, a dry run, `show`, and both in JSON.
"""

import glob
import os
import shlex
from itertools import pairwise
from pathlib import PurePath
from typing import Final, Literal

import msgspec

from backprop.scheduler.spec import NO_TIMEBOX_S, Plan, RunSpec

CHECKPOINT: Final = "CHECKPOINT"
LONGEST_DRILL: Final = 80

Way = Literal["resume-arg", "option", "itself", "integration", "protocol", "variable", "nothing", "unknown"]


class GoesOn(msgspec.Struct, frozen=True):
    """`way`: as in docs/json.md. `text`: the same in words, to stand after "goes on by: "; it ends with `to_type`, what
    a user may type then, "" for nothing."""

    way: Way
    text: str
    to_type: str = ""


def goes_on_by(spec: RunSpec, vram: str = "") -> GoesOn:
    """Return how a new segment of this run would take up what the last one saved. `vram`: why that of a suspended run
    stays on its GPU; "" where it does not."""
    plan = spec.plan or Plan()
    way, text = _way(spec, plan)
    known = way not in ("nothing", "unknown")
    if known and not spec.auto_resume:
        return GoesOn(way, f"{text}, once it is resumed: auto-resume is off")
    in_place = _may_be_suspended(spec, plan)
    beside = f", where others fit beside its VRAM ({vram})" if vram and uses_gpu(spec) else ""
    instead = f"suspending it in place{beside}; after a reboot: " if in_place and not known else ""
    if way == "unknown":
        said, to_type = _unknown(spec, plan)
        return GoesOn(way, f"{instead}{said} {to_type}", to_type)
    return GoesOn(
        way, f"{instead}{text}{f', else by suspending it in place{beside}' if in_place and known else ''}"
    )


def uses_gpu(spec: RunSpec) -> bool:
    """Return whether the run is given a GPU, where there is one."""
    return spec.gpus > 0 and spec.gpu_probe != "none"


def _may_be_suspended(spec: RunSpec, plan: Plan) -> bool:
    """Return whether the end of a box may suspend the run, as far as its specification tells."""
    never = spec.suspend == "never" or (spec.suspend == "auto" and plan.fragile) or spec.order == "fifo"
    ends = spec.at_timebox == "end" or not spec.auto_resume or plan.reads_deadline
    return not never and not ends and spec.timebox_s < NO_TIMEBOX_S


def kind_of(spec: RunSpec) -> tuple[object, ...]:
    """Return what runs of one kind have in common: they go on in the same way, whatever their arguments are."""
    plan = spec.plan or Plan()
    found = (plan.recipe, plan.resumes, plan.resume_words, plan.speaks, plan.note, bool(plan.globs))
    found = (*found, plan.integration, spec.integrations)
    given = (spec.resume_arg, spec.auto_resume, _may_be_suspended(spec, plan), uses_gpu(spec))
    return (spec.program, spec.script, *given, *found)


def short(pattern: str, cwd: str) -> str:
    """Return the pattern relative to `cwd` if it lies inside."""
    return pattern.removeprefix(f"{glob.escape(cwd)}{os.sep}")


def _way(spec: RunSpec, plan: Plan) -> tuple[Way, str]:
    if spec.resume_arg not in ("auto", "none"):
        return "resume-arg", f"{_filled(shlex.split(spec.resume_arg))}, as --resume-arg says"
    recipe = f" ({_title(plan.recipe)})" if plan.recipe != "none" else ""
    if plan.resumes == "append":
        if plan.guessed:
            given = (
                ", given the newest file that it is seen to save" if _takes_path(plan.resume_words) else ""
            )
            return "option", f"its {_option(plan.resume_words)}{given}"
        return "option", f"its {_option(plan.resume_words)}{recipe}"
    if plan.resumes == "rerun":
        where = f", from {short(plan.globs[0], spec.cwd)}" if plan.globs else ""
        return "itself", f"itself{where}{recipe}"
    if plan.integration and spec.attaches:
        return "integration", f"{_title(plan.recipe)} (integration attached at launch)"
    if plan.resumes == "none":
        return "nothing", f"nothing{recipe}; {plan.why.partition('; ')[2] or 'it cannot be resumed'}"
    if spec.resume_arg == "none":
        return "variable", "itself, as --resume-arg none says; the path is in BACKPROP_RESUME_FROM"
    if plan.speaks == "option":
        return "option", "its --resume-from"
    if plan.speaks == "events":
        return "protocol", "the checkpoints that it announces, given to it in BACKPROP_RESUME_FROM"
    if plan.speaks == "variable":
        return "variable", "itself, from the path in BACKPROP_RESUME_FROM"
    return "unknown", ""


def timebox_text(spec: RunSpec, overrun: str = "") -> str:
    """Word the timebox of this run, and what its end is. `overrun`: what stands behind the minutes."""
    from backprop.scheduler.governor.box_end import BoxRule, minutes, rule_of

    rule = rule_of(spec)
    if rule is BoxRule.NONE:
        return "none"
    end = f"then SIG{spec.stop_signal} and {spec.grace_s:g} s to save"
    if rule is BoxRule.AUTO and goes_on_by(spec).way in ("nothing", "unknown"):
        end = "not ended then: nothing is known to resume it with"
    elif rule is BoxRule.AUTO:
        end += " where that loses no work; else it goes on"
    return f"{minutes(spec.timebox_s)}{overrun}, {end}"


def _unknown(spec: RunSpec, plan: Plan) -> tuple[str, str]:
    name = PurePath(spec.script or _what_it_starts(spec)).name
    if plan.globs:
        say_it = "--resume-arg '--load {checkpoint}'"
        return f"nothing known; I can't tell how {name} loads a checkpoint. If it can:", say_it
    return f"nothing known; I can't tell how {name} saves or resumes. Try:", _drill(spec)


def _what_it_starts(spec: RunSpec) -> str:
    """Return the module or script that an interpreter is given; the program where that names none."""
    for before, word in pairwise(spec.argv):
        if before == "-m" or word.endswith((".py", ".sh")):
            return word
    return spec.program


def _drill(spec: RunSpec) -> str:
    """Return the drill of this command, without its arguments where they are long."""
    head, arguments = "backprop drill", list(spec.argv)
    if spec.argv[0] == spec.program and len(spec.argv) > 1 and spec.argv[1].endswith(".py"):
        head, arguments = f"{head} {shlex.quote(spec.argv[1])}", list(spec.argv[2:])
    whole = f"{head} -- {shlex.join(arguments)}" if arguments else head
    return whole if len(whole) <= LONGEST_DRILL else f"{head} -- …"


def _option(words: tuple[str, ...]) -> str:
    """Return the option among the words, without the place for the path; all of them where there is none."""
    option = next((word for word in words if word.startswith("-")), None)
    return option.removesuffix("={checkpoint}") if option is not None else _filled(words)


def _takes_path(words: tuple[str, ...]) -> bool:
    return any("{checkpoint}" in word for word in words)


def _filled(words: "tuple[str, ...] | list[str]") -> str:
    return shlex.join(word.replace("{checkpoint}", CHECKPOINT) for word in words)


def _title(recipe: str) -> str:
    from backprop.scheduler.recipes.registry import BY_NAME

    known = BY_NAME.get(recipe)
    return known.title.removeprefix("Plain ") if known is not None else recipe
