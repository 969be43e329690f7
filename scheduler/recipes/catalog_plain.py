"""The recipes of scripts around a loop of their own: Accelerate's and diffusers' examples, plain PyTorch, any other."""

import ast
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from backprop.scheduler.recipes.path_expressions import step_in
from backprop.scheduler.recipes.predicates import Facts, Predicate, imports, mentions, uses
from backprop.scheduler.recipes.recipe import CheckpointLocation, Recipe, RecipeMatch, Way
from backprop.scheduler.recipes.script_facts import Call

MAX_SAVES: Final = 16
_FOLDERS: Final = (
    "checkpoint_dir",
    "ckpt_dir",
    "checkpoints_dir",
    "save_dir",
    "save_path",
    "output_dir",
    "out_dir",
)
_RENAMES: Final = ("os.replace", "os.rename", "os.renames", "shutil.move")
_SUFFIXES: Final = ("*.pt", "*.pth", "*.ckpt", "*.pth.tar", "*/*.pt", "*/*.pth", "*/*.ckpt")


def _unasked() -> Predicate:
    def evidence(facts: Facts) -> str:
        option = facts.declared.get("checkpointing_steps")
        if option is None or facts.command.value("checkpointing_steps") is not None:
            return ""
        empty = option.default is None or (
            isinstance(option.default, ast.Constant) and option.default.value is None
        )
        return option.flag if empty else ""

    return Predicate("it declares `--checkpointing_steps` without a default, and that is not given", evidence)


ACCELERATE: Final = Recipe(
    name="accelerate",
    title="Accelerate and diffusers examples",
    known_by=uses("accelerate.Accelerator", "accelerate.*.Accelerator") & mentions("save_state"),
    places=(
        CheckpointLocation(
            ("checkpoint-*", "step_*", "epoch_*", "checkpoints/checkpoint_*"), ("output_dir", "project_dir")
        ),
    ),
    anywhere=("checkpoint-*", "step_*", "epoch_*", "checkpoints/checkpoint_*"),
    # Written last, one for each process (accelerate/checkpointing.py).
    needs=("random_states_0.pkl",),
    folders=True,
    ways=(Way("option", names=("resume_from_checkpoint",)),),
    step=r"(?:checkpoint[-_]|step_|epoch_)(\d+)$",
    advice=((_unasked(), "--checkpointing_steps is not given, so it will save no checkpoint"),),
    cannot="its text declares no --resume_from_checkpoint",
    limits="Without `--checkpointing_steps` most of these examples save no checkpoint.",
)


def find_saves(facts: Facts) -> RecipeMatch:
    """Return where its `torch.save` calls write; weights alone (`model.state_dict()`) only if it saves nothing else."""
    saves = list(_saves(facts))
    whole = [(patterns, node) for patterns, node, is_whole in saves if is_whole]
    chosen = whole or [(patterns, node) for patterns, node, _ in saves]
    patterns = tuple(dict.fromkeys(each for several, _ in chosen for each in several))
    if not patterns:
        folders = [each for name in _FOLDERS for each in facts.paths.named(name) if facts.command.value(name)]
        return RecipeMatch(
            tuple(f"{folder.rstrip('/')}/{suffix}" for folder in folders[:2] for suffix in _SUFFIXES)
        )
    steps = [step for several, node in chosen for each in several if (step := step_in(node, each))]
    fixed = any("*" not in each.rpartition("/")[2] for each in patterns)
    own = {each for several, _ in whole for each in several}
    again = own & _loaded(facts) & _looked_for(facts)
    return RecipeMatch(patterns, fixed, steps[0] if len(set(steps)) == 1 else None, min(again, default=""))


def _saves(facts: Facts) -> Iterator[tuple[list[str], ast.expr | None, bool]]:
    """Yield the patterns, the path's expression, and whether more than one state_dict is saved, for each save."""
    renamed = _renamed(facts)
    for call in _few(facts, "torch.save"):
        node = _argument(call, 1, "f")
        saved = _argument(call, 0, "obj")
        weights = (
            isinstance(saved, ast.Call)
            and isinstance(saved.func, ast.Attribute)
            and saved.func.attr == "state_dict"
        )
        drafts = facts.paths.all_of(node, call.within)
        patterns = [pattern for each in drafts for pattern in _narrowed(each)]
        if final := [renamed[each] for each in drafts if each in renamed]:
            node, within = final[0]
            patterns = [pattern for each in facts.paths.all_of(node, within) for pattern in _narrowed(each)]
        if patterns:
            yield patterns, node, not weights


def _renamed(facts: Facts) -> dict[str, tuple[ast.expr, str | None]]:
    """Return what drafts are renamed to, and the function around: by pattern. No resume ever meets a draft."""
    found: dict[str, tuple[ast.expr, str | None]] = {}
    for call in islice(facts.script.calls_of("replace", "rename", "renames", "move"), MAX_SAVES):
        func, given = call.node.func, call.node.args
        if call.name in _RENAMES and len(given) == 2:
            old, new = given
        elif call.name not in _RENAMES and isinstance(func, ast.Attribute) and len(given) == 1:
            old, new = func.value, given[0]  # of a pathlib.Path; the one of a string takes two
        else:
            continue
        for draft in facts.paths.all_of(old, call.within):
            if draft.strip("*/") and facts.paths.all_of(new, call.within):
                found[draft] = (new, call.within)
    return found


def _narrowed(pattern: str) -> tuple[str, ...]:
    """Replace an unknown name, which would fit logs and data too, by names that look like a checkpoint."""
    folder, slash, name = pattern.rpartition("/")
    if name.strip("*."):
        return (pattern,)
    return tuple(f"{folder}{slash}{suffix}" for suffix in _SUFFIXES[:4]) if folder.strip("*/.") else ()


def _loaded(facts: Facts) -> set[str]:
    calls = _few(facts, "torch.load")
    return {each for call in calls for each in facts.paths.all_of(_argument(call, 0, "f"), call.within)}


def _looked_for(facts: Facts) -> set[str]:
    """Return what it checks for before it loads it: else the first segment would fail."""
    patterns: set[str] = set()
    for call in islice(facts.script.calls_of("exists", "isfile", "is_file"), MAX_SAVES):
        func = call.node.func
        node = (
            call.node.args[0] if call.node.args else func.value if isinstance(func, ast.Attribute) else None
        )
        patterns.update(facts.paths.all_of(node, call.within))
    return patterns


def _few(facts: Facts, name: str) -> Iterator[Call]:
    return islice((call for call in facts.script.calls if call.name == name), MAX_SAVES)


def _argument(call: Call, at: int, name: str) -> ast.expr | None:
    if len(call.node.args) > at:
        return call.node.args[at]
    return next((each.value for each in call.node.keywords if each.arg == name), None)


PYTORCH: Final = Recipe(
    name="pytorch",
    title="Plain PyTorch",
    known_by=imports("torch"),
    finds=find_saves,
    only_if_resumable=True,
    ways=(Way("option"),),
    limits="Recognised only if it can be resumed: by an option that its text declares, or because it loads what it"
    " saves if that exists.",
)


_SAVER: Final = re.compile(r"^(save\w*|dump|to_pickle|write_bytes|tree_serialise_leaves|msgpack_serialize)$")


def _saves_files() -> Predicate:
    def evidence(facts: Facts) -> str:
        return next(
            (f"{call.name.lstrip('.')}()" for call in facts.script.calls if _SAVER.match(call.last)), ""
        )

    return Predicate("it calls something like `save()` or `dump()`", evidence)


MAX_WRITES: Final = 64


def find_written(facts: Facts) -> RecipeMatch:
    """Return patterns of the files that the script's text says it writes."""
    patterns: list[str] = []
    for call in islice(
        facts.script.calls_of("open", "save", "savez", "savez_compressed", "dump"), MAX_WRITES
    ):
        match call.name:
            case "open" | ".open" | "io.open" | "gzip.open" if _is_opened_for_writing(call):
                node = _argument(call, 0, "file")
            case "numpy.save" | "numpy.savez" | "numpy.savez_compressed":
                node = _argument(call, 0, "file")
            case "torch.save" | "joblib.dump":
                node = _argument(call, 1, "filename")
            case _:
                continue
        patterns += facts.paths.all_of(node, call.within)
    return RecipeMatch(tuple(dict.fromkeys(patterns)))


def _is_opened_for_writing(call: Call) -> bool:
    mode = _argument(call, 1, "mode")
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and "w" in mode.value


OWN_OPTION: Final = Recipe(
    name="own-option",
    title="Any script with an option to resume",
    known_by=_saves_files(),
    guesses=True,
    writes=find_written,
    only_if_resumable=True,
    ways=(Way("option"),),
    limits="What it saves is found as it is written, and the newest whole file is given to the option. If a segment"
    " starts over with it, the run goes on from there, and is not ended at a timebox any more.",
)
