"""Defines what a recipe is made of."""

from collections.abc import Callable
from typing import Literal

import msgspec

from backprop.scheduler.recipes.predicates import Facts, Predicate
from backprop.scheduler.recipes.source_reader import SourceReader


class CheckpointLocation(msgspec.Struct, frozen=True):
    """Where checkpoints appear: `below`, in the folder that one of the options, keywords or variables `named` holds.

    The first of `named` that holds something counts. Without any: in `default`, relative to the current directory, or
    nowhere. "<x>" in `below` is what the option x holds and whatever follows it, else anything. `roots`: returns more
    folders.
    """

    below: tuple[str, ...]
    named: tuple[str, ...] = ()
    default: str | None = None
    roots: Callable[[SourceReader], tuple[str, ...]] | None = None


class Way(msgspec.Struct, frozen=True):
    """One way to resume, taken if `when` holds.

    `kind` "append": with `words`; "rerun": with the same command; "option": with an option that the script's text
    declares (`resume_option`). `names`: options that this framework's scripts are known for. `first`: the words go
    before the other arguments.
    """

    kind: Literal["append", "rerun", "option"]
    words: tuple[str, ...] = ()
    when: Predicate | None = None
    names: tuple[str, ...] = ()
    first: bool = False


class OnSignal(msgspec.Struct, frozen=True):
    """The script saves on this signal (None for the recipe's), if `when` holds."""

    when: Predicate
    signal: str | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One framework.

    `places`: where its checkpoints appear. `anywhere`: patterns for the current directory and up to two folders below
    it, used if no place is named or a configuration file may name another one. `writes`: finds where its text says that
    it saves, which is no more than a hint. `finds`: finds patterns that no place can describe. `needs`: patterns of
    files that a whole checkpoint directory has. `in_place`: it overwrites its checkpoint. `folders`: its checkpoints
    are directories. `guesses`: nothing but an option's name speaks for it. `ways`: the first that holds is taken.
    Without one the script cannot be resumed, for the reason `cannot`, unless `integration` can be attached at launch;
    if `only_if_resumable`, it is not recognised at all. `step`: a regular expression, its first group the step in a
    name. `stop_signal`, and `grace_s` if it saves on that signal: unless the user says otherwise. `advice`: notes for
    the user, each with its condition. `limits`: what to know, for the documentation.
    """

    name: str
    title: str
    known_by: Predicate
    entries: tuple[str, ...] = ()
    places: tuple[CheckpointLocation, ...] = ()
    anywhere: tuple[str, ...] = ()
    finds: "Callable[[Facts], RecipeMatch] | None" = None
    writes: "Callable[[Facts], RecipeMatch] | None" = None
    needs: tuple[str, ...] = ()
    only_if_resumable: bool = False
    in_place: bool = False
    folders: bool = False
    guesses: bool = False
    ways: tuple[Way, ...] = ()
    step: str | None = None
    stop_signal: str | None = None
    grace_s: float | None = None
    on_signal: tuple[OnSignal, ...] = ()
    advice: tuple[tuple[Predicate, str], ...] = ()
    cannot: str = ""
    integration: str = ""
    limits: str = ""


class RecipeMatch(msgspec.Struct, frozen=True):
    """What a recipe's `finds` returns.

    `in_place`: a file of `patterns` is overwritten in place. `step`: a regular expression for the step in a name.
    `rerun`: a pattern of what the script both saves and, if it exists, loads; "" for none.
    """

    patterns: tuple[str, ...] = ()
    in_place: bool = False
    step: str | None = None
    rerun: str = ""
