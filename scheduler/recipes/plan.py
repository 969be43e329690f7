"""What is done with this command line: which recipe fits it, where it saves, how it is resumed?"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.spec import Plan

if TYPE_CHECKING:
    from backprop.scheduler.recipes.predicates import Facts
    from backprop.scheduler.recipes.recipe import Recipe, RecipeMatch, Way

LAUNCHER_GRACE_S: Final = 40.0
"""torchrun waits 30 s for its workers before it kills them (torch/distributed/elastic/multiprocessing/api.py)."""
_TRAINERS: Final = re.compile(
    rb"torch|transformers|trl|lightning|keras|ultralytics|mm(?:engine|cv|\w{1,20}\.apis)|detectron2|composer|accelerate"
    rb"|timm|init_from"
)
_OURS: Final = re.compile(rb"(?m)^[ \t]*(?:import|from)[ \t]+backprop\b|checkpoint_saved")
_READS_OURS: Final = b"BACKPROP_RESUME_FROM"


class _Seen(msgspec.Struct, frozen=True):
    facts: "Facts"
    reads_ours: bool


def plan_for(
    argv: Sequence[str],
    program: str,
    script: Path | None,
    cwd: Path,
    recipe_override: str | None = None,
    globs: Sequence[str] = (),
    resume_arg: str = "auto",
) -> Plan:
    """The plan for a command as queued. Reads the script, at most 1 MiB of it. Raises BadCommand for a bad name or
    glob.

    `recipe_override`: a recipe's name, "none" for none, None for what is recognised. `globs`: the user's, relative to
    `cwd`; they replace the recipe's. `resume_arg`: the setting, which overrides how the recipe resumes. A script that
    speaks our protocol keeps to it: no recipe, unless the user names one.
    """
    from backprop.scheduler.recipes.checkpoint_patterns import users_globs

    own = users_globs(globs, cwd)
    named = _named(recipe_override)
    found: Plan | None = None
    if recipe_override != "none":
        seen = _look((program if program else argv[0], *argv[1:]), script, cwd, named is not None)
        if seen is not None:
            found = _chosen(named, seen, cwd)
    plan = found or Plan()
    if own:
        fixed = any(not glob.has_magic(each.rpartition("/")[2]) for each in own)
        plan = msgspec.structs.replace(plan, globs=own, in_place=plan.in_place or fixed)
    return _plain(_overridden(_with_note(plan), resume_arg))


def _named(name: str | None) -> "Recipe | None":
    if name is None or name == "none":
        return None
    from backprop.scheduler.recipes.registry import BY_NAME

    if name not in BY_NAME:
        raise BadCommand(f"--recipe {name} is not known; there are {', '.join(sorted(BY_NAME))}, and none")
    return BY_NAME[name]


def _look(argv: Sequence[str], script: Path | None, cwd: Path, forced: bool) -> _Seen | None:
    """What is known of the command; None when it is nothing that a recipe could be for. Cheap for most scripts."""
    from backprop.scheduler.recipes.command_line import read_command, read_script

    command = read_command(argv, cwd)
    path = command.script or (script if script is not None and script.suffix == ".py" else None)
    text = read_script(path) if path is not None and not command.entry else b""
    if not forced and not command.entry and (_OURS.search(text) or not _TRAINERS.search(text)):
        return None
    from backprop.scheduler.recipes.declared_options import options_of
    from backprop.scheduler.recipes.path_expressions import Paths
    from backprop.scheduler.recipes.predicates import Facts
    from backprop.scheduler.recipes.script_parser import understand

    known = understand(text)
    declared = options_of(known)
    return _Seen(Facts(command, known, declared, Paths(known, command, declared)), _READS_OURS in text)


def _chosen(named: "Recipe | None", seen: _Seen, cwd: Path) -> Plan | None:
    from backprop.scheduler.recipes.registry import RECIPES

    if named is not None:
        return _plan(named, seen, cwd, "named by --recipe", forced=True)
    for recipe in RECIPES:
        if evidence := recipe.known_by.evidence(seen.facts):
            where = seen.facts.command.script
            plan = _plan(recipe, seen, cwd, f"{where.name} has {evidence}" if where else evidence)
            if plan is not None:
                return plan
    return None


def _plan(recipe: "Recipe", seen: _Seen, cwd: Path, why: str, forced: bool = False) -> Plan | None:
    from backprop.scheduler.recipes.checkpoint_patterns import globs_of

    facts = seen.facts
    found = recipe.finds(facts) if recipe.finds is not None else None
    resumes, words, first, how = _way(recipe, facts, found, forced)
    if seen.reads_ours:
        resumes, words, how = "unknown", (), "it reads BACKPROP_RESUME_FROM itself"
    elif recipe.only_if_resumable and resumes == "none":
        return None
    saves, signal = _on_signal(recipe, facts)
    advice = next((text for mark, text in recipe.advice if mark.evidence(facts)), "")
    return Plan(
        recipe=recipe.name,
        why=f"{why}; {how}" if how else why,
        globs=globs_of(recipe, facts, found, cwd),
        needs=recipe.needs,
        in_place=recipe.in_place or (found is not None and found.in_place),
        resumes=resumes,
        resume_words=words,
        resume_at=_resume_at(facts, first) if words else None,
        step_pattern=(found.step if found is not None else None) or recipe.step,
        saves_on_signal=saves,
        stop_signal=signal,
        grace_s=_grace_s(recipe, facts, saves),
        note=advice,
    )


def _way(
    recipe: "Recipe", facts: "Facts", found: "RecipeMatch | None", forced: bool
) -> tuple[Literal["append", "rerun", "none", "unknown"], tuple[str, ...], bool, str]:
    """(how it resumes, the words, whether they go first, why) by the first way that holds."""
    from backprop.scheduler.recipes.resume_option import loading_option

    for way in recipe.ways:
        if way.kind == "option":
            option = loading_option(facts.script, facts.declared, recipe.folders, way.names)
            if option is not None:
                return "append", option.words, way.first, option.why
        elif way.when is None or way.when.evidence(facts):
            return way.kind, way.words, way.first, ""
    if found is not None and found.rerun:
        return "rerun", (), False, f"it loads {found.rerun} when that is there"
    if forced:
        certain: Sequence[Way] = [way for way in recipe.ways if way.kind != "option"]
        if certain and certain[0].kind != "option":
            return certain[0].kind, certain[0].words, certain[0].first, ""
        return "unknown", (), False, "how it resumes could not be read from its text: --resume-arg tells"
    return "none", (), False, recipe.cannot


def _on_signal(recipe: "Recipe", facts: "Facts") -> tuple[bool, str | None]:
    """(whether it saves when it is asked to stop, the signal to ask it with if not the usual one)."""
    from backprop.scheduler.recipes.command_line import FORWARDING

    told = next((each for each in recipe.on_signal if each.when.evidence(facts)), None)
    if told is not None:
        saves, signal = True, told.signal or recipe.stop_signal
    elif handled := _handled(facts):
        saves, signal = True, None if "INT" in handled else handled[0]
    else:
        saves, signal = any("save" in name for name in facts.script.on_interrupt), recipe.stop_signal
    # Only torch's own launcher is known to pass the signal on.
    return saves and facts.command.launchers <= FORWARDING, signal


def _handled(facts: "Facts") -> list[str]:
    """The signals that the script's own text installs a handler for, the likeliest to save first."""
    import ast

    found = {
        node.attr.removeprefix("SIG")
        for call in facts.script.calls
        if call.name == "signal.signal" and len(call.node.args) == 2
        for node in call.node.args[:1]
        if isinstance(node, ast.Attribute) and _is_handler(call.node.args[1])
    }
    return [name for name in ("TERM", "USR1", "INT", "USR2", "HUP") if name in found]


def _is_handler(node: object) -> bool:
    import ast

    return not (isinstance(node, ast.Attribute) and node.attr in ("SIG_IGN", "SIG_DFL"))


def _grace_s(recipe: "Recipe", facts: "Facts", saves: bool) -> float | None:
    wanted_s = [LAUNCHER_GRACE_S] if facts.command.launchers else []
    wanted_s += [recipe.grace_s] if saves and recipe.grace_s is not None else []
    return max(wanted_s, default=None)


def _resume_at(facts: "Facts", first: bool) -> int | None:
    """Where in argv the words go; None for the end, where they beat what is there already."""
    command = facts.command
    if first or "REMAINDER" in facts.script.words:
        return command.at
    return command.at + command.arguments.index("--") if "--" in command.arguments else None


def _with_note(plan: Plan) -> Plan:
    if plan.recipe == "none" or plan.globs or plan.resumes == "none":
        return plan
    return msgspec.structs.replace(
        plan, note="where it saves could not be read from its text: --checkpoint-glob tells"
    )


def _plain(plan: Plan) -> Plan:
    """The same, unless the text had half a character in what was taken from it: no file could be named so."""
    try:
        msgspec.json.encode(plan)
    except UnicodeEncodeError:
        return Plan()
    return plan


def _overridden(plan: Plan, resume_arg: str) -> Plan:
    """What the user's setting makes of it: words of its own, or nothing appended."""
    if resume_arg == "auto":
        return plan
    if resume_arg == "none":
        if plan.resumes != "append":
            return plan
        return msgspec.structs.replace(plan, resumes="unknown", resume_words=(), resume_at=None)
    import shlex

    return msgspec.structs.replace(
        plan, resumes="append", resume_words=tuple(shlex.split(resume_arg)), resume_at=None
    )
