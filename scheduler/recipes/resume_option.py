"""Chooses which of a script's own options makes it resume from a checkpoint; none unless that is certain.

`--checkpoint` may name an output, weights to fine-tune from, or what to evaluate; `--resume` may want an id. An option
whose file gives back nothing but a model's weights begins at step 0 with them, so it resumes nothing. In doubt the
answer is none: the chain then ends after one timebox with advice, which costs less than a night of restarts.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from backprop.scheduler.recipes.declared_options import Option
from backprop.scheduler.recipes.script_facts import Call, Script

RESUMING: Final = (
    "resume_from_checkpoint",
    "resume_from",
    "resume_checkpoint",
    "resume_ckpt",
    "resume_checkpoint_path",
    "resume_path",
    "resume_file",
    "resume_model",
    "resume",
    "continue_from",
    "restore_from",
)
LOADING: Final = (
    "ckpt_path",
    "checkpoint_path",
    "load_checkpoint",
    "load_ckpt",
    "checkpoint",
    "ckpt",
    "restore",
    "load",
)
NEWEST: Final = ("auto", "latest", "last")
"""What makes a script look for its newest checkpoint itself, where it takes only some words."""
_NOT_OURS: Final = frozenset({"allow", "must"})
"""Words for the resume of a tracker's run (wandb)."""
SWITCHES: Final = ("resume", "auto_resume", "resume_training", "continue_training")
_OTHER_THING: Final = re.compile(
    r"\b(id|ids|epoch number|start epoch|wandb|w&b|neptune|mlflow|comet)\b", re.I
)
_FOLDER: Final = re.compile(r"\b(dir|directory|folder)\b", re.I)
_FILE: Final = re.compile(
    r"\bfiles?\b|checkpoint path|path (?:to|of) (?:\w+ ){0,3}(?:checkpoint|ckpt)|\.pth?\b", re.I
)
_LOADS: Final = re.compile(r"resum|restor|continu|(?:start|load|init\w*)\w* (?:\w+ ){0,3}from|to load", re.I)
_NOT_RESUMING: Final = re.compile(
    r"sav(?:e|ing|ed)\b|output|write|\bstore|evaluat|\btest|inference|predict|fine-?tun|pre-?train|weights only"
    r"|initiali[sz]",
    re.I,
)
_WEIGHTS: Final = re.compile(r"pre-?train|fine-?tun|weights only|initiali[sz]", re.I)
RAW_LOADS: Final = frozenset(
    ("torch.load", "pickle.load", "cloudpickle.load", "dill.load", "joblib.load", "json.load", "numpy.load")
)
"""They give back what was saved and nothing else: what a script takes of it stands in its own text."""
_LOADER: Final = re.compile(r"load|resume|restore", re.I)
_SAVER: Final = re.compile(r"save|dump|write", re.I)
_NAMES: Final = frozenset((*LOADING, *RESUMING))
_KEPT_STATE: Final = re.compile(r"opt|(?:lr_?)?sched|.*scaler|state$|trainer|engine", re.I)
"""What a script gives a state back to, beside its model."""
_COUNTERS: Final = frozenset(
    {"epoch", "epochs", "start_epoch", "step", "global_step", "steps", "iter", "iteration", "iters", "it"}
    | {"iter_num", "optimizer", "optim", "optimizer_state_dict", "optimizer_state", "opt"}
)
"""What is read from a checkpoint to go on from there."""


class ResumeOption(msgspec.Struct, frozen=True):
    """`words`: to append, with {checkpoint} where the path goes. `why`: the option, in words."""

    words: tuple[str, ...]
    why: str


def resume_option(
    script: Script, declared: Mapping[str, Option], folders: bool, names: tuple[str, ...] = ()
) -> ResumeOption | None:
    """Return the option to resume with, or None.

    `folders`: the checkpoints are directories. `names`: options that this framework's scripts are known for, besides
    the usual ones.
    """
    uses = _uses(script)
    for name in (*names, *RESUMING):
        option = declared.get(name)
        takes_path = option is not None and option.takes == "value" and _names_checkpoint(option, folders)
        if option is None or not takes_path:
            continue
        if "raw load" not in uses.get(name, set()) or _restores_progress(script):
            return _with_path(option)
    for name in LOADING:
        option = declared.get(name)
        if option is not None and option.takes == "value" and _resumes(option, uses.get(name, set()), script):
            return _with_path(option)
    for name in (*names, *SWITCHES):
        option = declared.get(name)
        if option is not None and option.takes in ("flag", "bool") and not _is_on(option):
            if not names and any(script.calls_named("torch.load")) and not _restores_progress(script):
                continue
            words = (option.flag,) if option.takes == "flag" else (option.flag, "True")
            words = (f"{option.flag}=true",) if option.joined else words
            return ResumeOption(words, f"its own option {option.flag}")
    for name in (*names, *RESUMING, *SWITCHES):
        option = declared.get(name)
        newest = next((each for each in NEWEST if option is not None and each in option.choices), None)
        if option is not None and newest and not _NOT_OURS & set(option.choices):
            return ResumeOption((option.flag, newest), f"its own option {option.flag} {newest}")
    return None


def _with_path(option: Option) -> ResumeOption:
    words = (f"{option.flag}={{checkpoint}}",) if option.joined else (option.flag, "{checkpoint}")
    return ResumeOption(words, f"its own option {option.flag}")


def _names_checkpoint(option: Option, folders: bool) -> bool:
    """Return whether an option named like a resume takes a path to one of its checkpoints."""
    if _OTHER_THING.search(option.help):
        return False
    if _WEIGHTS.search(option.help) and not _LOADS.search(option.help):
        return False
    return folders or not _FOLDER.search(option.help) or _FILE.search(option.help) is not None


def _resumes(option: Option, uses: set[str], script: Script) -> bool:
    """Return whether an ambiguous option means a resume, by its help and by what the script does with it."""
    if "save" in uses or _NOT_RESUMING.search(option.help) or _OTHER_THING.search(option.help):
        return False
    if "fit" in uses:
        return True
    if _LOADS.search(option.help) and "raw load" not in uses:
        return True
    return "load" in uses and _restores_progress(script)


def _restores_progress(script: Script) -> bool:
    """Return whether the script takes more than weights from what it loads: an optimizer's state, or a counter."""
    if script.keys_read & _COUNTERS or any(script.calls_of("load_state")):
        return True
    owners = (call.node.func for call in script.calls_of("load_state_dict"))
    if any(isinstance(owner, ast.Attribute) and _is_kept_state(owner.value) for owner in owners):
        return True
    loaders = (call for call in script.calls if _LOADER.search(call.last) and call.last != "load_state_dict")
    return any(_is_kept_state(argument) for call in loaders for argument in call.node.args)


def _is_kept_state(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return _KEPT_STATE.match(name) is not None


def _uses(script: Script) -> dict[str, set[str]]:
    """Return what is done with each name that may be an option: load, save, fit (a trainer resumes from it);
    "raw load" too, where the text shows what is taken from it."""
    uses: dict[str, set[str]] = {}
    for call in script.calls:
        for kind, node in _arguments(call):
            for each in ast.walk(node):
                name = (
                    each.attr
                    if isinstance(each, ast.Attribute)
                    else each.id
                    if isinstance(each, ast.Name)
                    else None
                )
                if name in _NAMES:
                    uses.setdefault(name, set()).add(kind)
                elif isinstance(each, ast.Name):  # path = args.checkpoint, then torch.load(path)
                    for value in script.values.get(each.id, ())[:4]:
                        if isinstance(value, ast.Attribute) and value.attr in _NAMES:
                            uses.setdefault(value.attr, set()).add(kind)
    return uses


def _arguments(call: Call) -> Iterator[tuple[str, ast.expr]]:
    for keyword in call.node.keywords:
        if call.last in ("fit", "train") and keyword.arg in ("ckpt_path", "resume_from_checkpoint"):
            yield "fit", keyword.value
    kind = "save" if _SAVER.search(call.last) else "load" if _LOADER.search(call.last) else None
    kinds = [kind] if kind is not None else []
    kinds += ["raw load"] if call.name in RAW_LOADS else []
    for each_kind in kinds:
        yield from ((each_kind, each) for each in call.node.args[:4])
        yield from ((each_kind, each.value) for each in call.node.keywords)


def _is_on(option: Option) -> bool:
    return isinstance(option.default, ast.Constant) and option.default.value is True
