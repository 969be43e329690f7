"""Reads which places a run's command, environment and recipe lead to, to tell it from the runs beside it. Pure.

Two runs of a sweep differ by an argument. Where the same argument leads the one here and the other elsewhere, what
appears here is the first one's. A place that only one of them names says nothing: the other may use it by default.
"""

import glob
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.checkpoints.glob_walk import matches
from backprop.worker.checkpoints.roots import MAX_PATH_BYTES

MAX_WORDS: Final = 2000
_SAVES: Final = re.compile(
    r"OUT|SAVE|CKPT|CHECKPOINT|RESULT|EXP|(RUN|LOG|WORK|MODEL)S?_?(DIR|PATH|ROOT|FOLDER)"
)
"""Variables that name where something is saved."""
_ESCAPED: Final = re.compile(r"\[(.)\]")
_MAGIC: Final = re.compile(r"[*?\[]")
_READS: Final = re.compile(r"data|cache|image|input|vocab|token|pretrain|config|resume", re.IGNORECASE)
"""Options that name what is read."""


class Places(msgspec.Struct, frozen=True):
    """`named`: absolute paths by what names them: an option, a position, a variable. `globs`: of the recipe or user.
    `folders`: those that files of the run's own are known to lie in. `by_text`: patterns of what a script's own text
    says it writes, by that script."""

    named: Mapping[str, str]
    globs: Sequence[str] = ()
    folders: frozenset[str] = frozenset()
    by_text: Mapping[str, Sequence[str]] = {}


def places_of(spec: RunSpec, environment: Mapping[str, str]) -> Places:
    """Return the places of one run. `environment`: that of the shell that queued it."""
    named = {"its directory": spec.cwd}
    for name, text in (*_arguments(spec.argv), *saving_variables(environment)):
        if _may_be_place(text):
            named.setdefault(name, posixpath.normpath(posixpath.join(spec.cwd, text)))
    plan = spec.plan or Plan()
    # The same text with other arguments: of another script's text nothing follows.
    by_text = {f"the text of {spec.script}": plan.expects} if plan.expects else {}
    return Places(named, plan.globs, by_text=by_text)


def _may_be_place(text: str) -> bool:
    """Return False for a number: a folder of that name may be an epoch's."""
    return (
        bool(text)
        and "://" not in text
        and "\0" not in text
        and len(text) <= MAX_PATH_BYTES
        and not re.fullmatch(r"[-+.\deE_]*\d[.\deE_]*", text)
    )


def saving_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield those variables that name where something is saved, and their values."""
    for name, value in environment.items():
        if _SAVES.search(name) and ":" not in value:
            yield f"${name}", value


def read_only_options(argv: Sequence[str]) -> frozenset[str]:
    """Return what the options hold that name data to read: no checkpoints appear there."""
    return frozenset(text for name, text in _arguments(argv) if name.startswith("-") and _READS.search(name))


def fixed_files(spec: RunSpec) -> frozenset[str]:
    """Return those patterns of a plan that fit the same files whatever the script does: in a folder of their own, only
    a step may be open."""
    plan = spec.plan or Plan()
    return frozenset(each for each in plan.globs if _is_fixed(each, plan.step_pattern is not None, spec.cwd))


def _is_fixed(pattern: str, stepped: bool, cwd: str) -> bool:
    folder, _, name = _ESCAPED.sub("x", pattern).rpartition("/")
    open_step = stepped and name.count("*") == 1 and posixpath.dirname(pattern) != glob.escape(cwd)
    return not _MAGIC.search(folder) and (not _MAGIC.search(name) or open_step)


def elsewhere(paths: Sequence[str], places: Mapping[str, Places]) -> frozenset[str]:
    """Return the runs that have a place of their own elsewhere, where the same argument leads another one here.

    `paths`: of one file, as found and without links. `places`: of the runs that may have written it, by run.
    """
    here = {run: _leading_here(paths, its) for run, its in places.items()}
    return frozenset(
        run
        for run, its in places.items()
        if any(name in _known(its) and name not in here[run] for other in places for name in here[other])
    )


def _leading_here(paths: Sequence[str], places: Places) -> frozenset[str]:
    names = {name for name, place in places.named.items() if any(_covers(place, path) for path in paths)}
    if any(matches(path, pattern) for path in paths for pattern in places.globs):
        names.add("its recipe")
    for name, patterns in places.by_text.items():
        if any(matches(path, pattern) for path in paths for pattern in patterns):
            names.add(name)
    if any(posixpath.dirname(path) in places.folders for path in paths):
        names.add("its files")
    return frozenset(names)


def _known(places: Places) -> frozenset[str]:
    more = ("its recipe",) if places.globs else ()
    return frozenset((*places.named, *places.by_text, *more, *(("its files",) if places.folders else ())))


def _covers(place: str, path: str) -> bool:
    """Return whether `path` is `place`, in it, or begins with it as a name does: `--save out/a` writes out/a-100.pt."""
    rest = path.removeprefix(place)
    return len(rest) < len(path) and (not rest or place == "/" or rest[0] in "/.-_")


def _arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of `--out X`, `--out=X`, `out=X`, and what stands alone by its position."""
    words, at, position = argv[1 : MAX_WORDS + 1], 0, 0
    while at < len(words):
        word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
        name, equals, value = word.partition("=")
        at += 1
        if equals:
            yield name, value
        elif word.startswith("-"):
            if following and not following.startswith("-"):
                yield word, following
                at += 1
        else:
            yield f"argument {position}", word
            position += 1
