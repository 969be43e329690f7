"""Makes the plan for a command: which recipe fits it, where it saves, how it is resumed.

The only module of this package that others call. Every `backprop run` loads it; what most scripts do not need is
imported where it is used.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.spec import Plan

if TYPE_CHECKING:
    from backprop.scheduler.recipes.command_line import Command
    from backprop.scheduler.recipes.predicates import Facts
    from backprop.scheduler.recipes.recipe import Recipe, RecipeMatch, Way
    from backprop.scheduler.recipes.source_reader import SourceReader

_FRAMEWORKS: Final = re.compile(
    rb"torch|transformers|trl|lightning|keras|ultralytics|mm(?:engine|cv|\w{1,20}\.apis)|detectron2|composer|accelerate"
    rb"|timm|init_from"
)
_OPTIONS: Final = re.compile(rb"resum|restor|continue[-_]|ckpt|checkpoint|load[-_]|--load\b")
"""Some part of these stands in the name of every option that resumes."""
_OUR_PROTOCOL: Final = re.compile(rb"(?m)^[ \t]*(?:import|from)[ \t]+backprop\b|checkpoint_saved")
_OUR_VARIABLE: Final = b"BACKPROP_RESUME_FROM"
_DEADLINE: Final = re.compile(rb"BACKPROP_DEADLINE(?!_FILE)")
_FRAGILE: Final = {
    "it trains by torch.distributed": re.compile(rb"\btorch\.distributed\b|\binit_process_group\b"),
    "it has a limit on wall-clock time": re.compile(
        rb"\b(?:max|limit|budget)_(?:train_)?(?:time|hours|minutes|seconds)\b|\btime_(?:limit|budget)\b"
        rb"|--max-(?:train-)?(?:time|hours|minutes|seconds)\b"
    ),
}
"""What notices that the processes stood still for hours."""
_OUR_OPTION: Final = re.compile(rb"""(['"])--resume-from\1""")
"""As a script that declares it writes it: a quoted word of its own."""


class _Subject(msgspec.Struct, frozen=True):
    """A command and its script. `speaks`: as in `Plan`. `reads_variable`: the text names BACKPROP_RESUME_FROM.
    `with_modules`: of what the script imports from its own folder too."""

    facts: "Facts"
    speaks: Literal["option", "events", "variable", ""]
    reads_variable: bool
    with_modules: bool
    cwd: PurePath
    reader: "SourceReader"


def plan_for(
    argv: Sequence[str],
    program: str,
    script: PurePath | None,
    cwd: PurePath,
    reader: "SourceReader",
    recipe_override: str | None = None,
    globs: Sequence[str] = (),
    resume_arg: str = "auto",
) -> Plan:
    """Return the plan for a command as queued. Raises BadCommand for a bad name or glob.

    `recipe_override`: a recipe's name, "none" for none, None for what is recognised. `globs`: the user's, relative to
    `cwd`; they replace the recipe's. `resume_arg`: the setting, which overrides how the recipe resumes. A script that
    speaks our protocol gets no recipe, unless the user names one.
    """
    own: tuple[str, ...] = ()
    fixed = False
    if globs:
        import glob

        from backprop.scheduler.recipes.checkpoint_patterns import users_globs

        own = users_globs(globs, cwd, reader)
        fixed = any(not glob.has_magic(each.rpartition("/")[2]) for each in own)
    named = _named(recipe_override)
    words = (program if program else argv[0], *argv[1:])
    command, path, text = _read(words, script, cwd, reader)
    plan = Plan(speaks=_speaks(text))
    if recipe_override != "none":
        subject = _examine(command, (text,), cwd, reader, forced=named is not None)
        plan = (_choose(named, subject) if subject is not None else None) or plan
    if path is not None and not plan.speaks and not _is_enough(plan):
        plan = _with_modules(plan, named, recipe_override != "none", command, path, text, cwd, reader)
    if _DEADLINE.search(text):
        plan = msgspec.structs.replace(plan, reads_deadline=True)
    if (
        fragile := next((why for why, text_has in _FRAGILE.items() if text_has.search(text)), None)
    ) is not None:
        plan = msgspec.structs.replace(plan, fragile=fragile)
    if own:
        plan = msgspec.structs.replace(plan, globs=own, in_place=plan.in_place or fixed)
    return _encodable(with_resume_arg(_with_note(plan), resume_arg))


def announces(text: bytes) -> bool:
    """Return whether a script's text says that it announces its checkpoints."""
    return _OUR_PROTOCOL.search(text) is not None


def declares_resume_from(text: bytes) -> bool:
    """Return whether a script's text declares the option `--resume-from`."""
    return _OUR_OPTION.search(text) is not None


def _named(name: str | None) -> "Recipe | None":
    if name is None or name == "none":
        return None
    from backprop.scheduler.recipes.registry import BY_NAME

    if name not in BY_NAME:
        raise BadCommand(f"unknown recipe {name}; use one of {', '.join(sorted(BY_NAME))}, or none")
    return BY_NAME[name]


def _read(
    argv: Sequence[str], script: PurePath | None, cwd: PurePath, reader: "SourceReader"
) -> "tuple[Command, PurePath | None, bytes]":
    """Return the command taken apart, its script and the script's text; nothing for a console command or a program."""
    from backprop.scheduler.recipes.command_line import read_command

    command = read_command(argv, cwd, reader)
    path = command.script or (script if script is not None and script.suffix == ".py" else None)
    if path is None or command.entry:
        return command, None, b""
    return command, path, reader.read(path)


def _speaks(text: bytes) -> Literal["option", "events", "variable", ""]:
    if declares_resume_from(text):
        return "option"
    if announces(text):
        return "events"
    return "variable" if _OUR_VARIABLE in text else ""


def _is_enough(plan: Plan) -> bool:
    """Return whether the script's own text says where it saves and how it resumes."""
    return plan.resumes in ("append", "rerun") and bool(plan.globs)


def _with_modules(
    plan: Plan,
    named: "Recipe | None",
    any_recipe: bool,
    command: "Command",
    path: PurePath,
    text: bytes,
    cwd: PurePath,
    reader: "SourceReader",
) -> Plan:
    """Return the plan by what the script and the modules in its own folder say together, if that is more."""
    from backprop.scheduler.recipes.own_modules import own_modules

    texts = own_modules(path, text, tuple(dict.fromkeys((path.parent, cwd))), reader)
    speaks = next((said for each in texts if (said := _speaks(each))), "")
    if not texts or speaks or not any_recipe:
        return msgspec.structs.replace(plan, speaks=speaks) if speaks else plan
    subject = _examine(command, (text, *texts), cwd, reader, forced=named is not None)
    together = _choose(named, subject) if subject is not None else None
    certain = plan.recipe != "none" and not plan.guessed
    if together is None or (certain and not _is_enough(together)):
        return plan
    return together


def _examine(
    command: "Command", texts: tuple[bytes, ...], cwd: PurePath, reader: "SourceReader", forced: bool
) -> _Subject | None:
    """Return what is known of the command; None when no recipe could fit it. Cheap for most scripts.

    `texts`: of the script, and of modules of its own. `forced`: the user named a recipe, so examine any script.
    """
    text = texts[0]
    ours, known = (
        _OUR_PROTOCOL.search(text),
        any(_FRAMEWORKS.search(each) or _OPTIONS.search(each) for each in texts),
    )
    if not forced and not command.entry and (ours or not known):
        return None
    from backprop.scheduler.recipes.declared_options import options_of
    from backprop.scheduler.recipes.path_expressions import Paths
    from backprop.scheduler.recipes.predicates import Facts
    from backprop.scheduler.recipes.script_parser import parse, parse_together

    parsed = parse_together(texts) if len(texts) > 1 else parse(text)
    declared = options_of(parsed)
    facts = Facts(command, parsed, declared, Paths(parsed, command, declared))
    return _Subject(facts, _speaks(text), _OUR_VARIABLE in text, len(texts) > 1, cwd, reader)


def _choose(named: "Recipe | None", subject: _Subject) -> Plan | None:
    """Return the plan by the named recipe, else by the first that fits."""
    from backprop.scheduler.recipes.registry import RECIPES

    if named is not None:
        return _plan(named, subject, "named by --recipe", forced=True)
    for recipe in RECIPES:
        if evidence := recipe.known_by.evidence(subject.facts):
            script = subject.facts.command.script
            where = (
                f"a module of {script.name}" if script and subject.with_modules else script and script.name
            )
            plan = _plan(recipe, subject, f"{where} has {evidence}" if where else evidence)
            if plan is not None:
                return plan
    return None


def _plan(recipe: "Recipe", subject: _Subject, why: str, forced: bool = False) -> Plan | None:
    from backprop.scheduler.recipes.checkpoint_patterns import globs_of
    from backprop.scheduler.recipes.stop_signal import grace_s, on_signal

    facts, written = subject.facts, recipe.writes
    match = recipe.finds(facts) if recipe.finds is not None else None
    resumes, words, first, how = _way(recipe, facts, match, forced)
    if subject.reads_variable:
        resumes, words, how = "unknown", (), "it reads BACKPROP_RESUME_FROM itself"
    elif recipe.only_if_resumable and resumes == "none":
        return None
    integration = recipe.integration if resumes == "none" else ""
    saves, signal = on_signal(recipe, facts) if not integration else (False, None)
    advice = next((text for condition, text in recipe.advice if condition.evidence(facts)), "")
    return Plan(
        recipe=recipe.name,
        why=f"{why}; {how}" if how else why,
        # Of several trainings in one run only the integration tells which checkpoint is whose.
        globs=() if integration else globs_of(recipe, facts, match, subject.cwd, subject.reader),
        needs=recipe.needs,
        in_place=not integration and (recipe.in_place or (match is not None and match.in_place)),
        resumes=resumes,
        resume_words=words,
        resume_at=_resume_at(facts, first) if words else None,
        step_pattern=(match.step if match is not None else None) or recipe.step,
        saves_on_signal=saves,
        stop_signal=signal,
        grace_s=grace_s(recipe, facts, saves or bool(integration)),
        note=advice,
        guessed=recipe.guesses,
        expects=globs_of(recipe, facts, written(facts), subject.cwd, subject.reader) if written else (),
        speaks=subject.speaks,
        integration=integration,
    )


def _way(
    recipe: "Recipe", facts: "Facts", match: "RecipeMatch | None", forced: bool
) -> tuple[Literal["append", "rerun", "none", "unknown"], tuple[str, ...], bool, str]:
    """Return how the script resumes, the words, whether they go first, and why, by the first way that holds."""
    from backprop.scheduler.recipes.resume_option import resume_option

    for way in recipe.ways:
        if way.kind == "option":
            option = resume_option(facts.script, facts.declared, recipe.folders, way.names)
            if option is not None:
                return "append", option.words, way.first, option.why
        elif way.when is None or way.when.evidence(facts):
            return way.kind, way.words, way.first, ""
    if match is not None and match.rerun:
        return "rerun", (), False, f"it loads {match.rerun} if that file exists"
    if forced:
        certain: Sequence[Way] = [way for way in recipe.ways if way.kind != "option"]
        if certain and certain[0].kind != "option":
            return certain[0].kind, certain[0].words, certain[0].first, ""
        return "unknown", (), False, "its text does not show how it resumes; say it with --resume-arg"
    return "none", (), False, recipe.cannot


def _resume_at(facts: "Facts", first: bool) -> int | None:
    """Return where in argv the words go; None for the end, where they override earlier ones."""
    command = facts.command
    if first or "REMAINDER" in facts.script.words:
        return command.at
    return command.at + command.arguments.index("--") if "--" in command.arguments else None


def _with_note(plan: Plan) -> Plan:
    if plan.recipe == "none" or plan.globs or plan.guessed or plan.resumes == "none":
        return plan
    return msgspec.structs.replace(
        plan, note="its text does not show where it saves; say it with --checkpoint-glob"
    )


def _encodable(plan: Plan) -> Plan:
    """Return `plan`, or an empty one if text taken from the script holds a lone surrogate, which names no file."""
    try:
        msgspec.json.encode(plan)
    except UnicodeEncodeError:
        return Plan()
    return plan


def with_resume_arg(plan: Plan, resume_arg: str) -> Plan:
    """Return `plan` with the user's setting applied: words of its own, or nothing appended."""
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
