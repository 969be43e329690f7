"""What is an entry made of?"""

from collections.abc import Callable
from typing import Literal

import msgspec

from backprop.scheduler.recipes.predicates import Facts, Predicate
from backprop.scheduler.recipes.source_reader import SourceReader


class CheckpointLocation(msgspec.Struct, frozen=True):
    """Where checkpoints appear: `below`, in the folder that one of the options, keywords or variables `named` holds.

    Of several that hold something the first counts. Without any: in `default`, relative to the current directory, or
    nowhere. "<x>" in `below` is what the option x holds and whatever is added to it, else anything.
    `roots`: more folders, found elsewhere.
    """

    below: tuple[str, ...]
    named: tuple[str, ...] = ()
    default: str | None = None
    roots: Callable[[SourceReader], tuple[str, ...]] | None = None


class Way(msgspec.Struct, frozen=True):
    """One way to resume, taken when `when` holds. `kind` "option": with an option that the script's text declares
    (`loading`); `names`: those that it is known for. `first`: the words go before the other arguments."""

    kind: Literal["append", "rerun", "option"]
    words: tuple[str, ...] = ()
    when: Predicate | None = None
    names: tuple[str, ...] = ()
    first: bool = False


class OnSignal(msgspec.Struct, frozen=True):
    """It saves when it gets this signal, if `when` holds."""

    when: Predicate
    signal: str | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One framework.

    `anywhere`: where no place is named, or a configuration file may name another one, these are looked for in the
    current directory and up to two folders below it. `finds`: patterns that no place can describe. `needs`: files that
    a whole checkpoint directory has. `in_place`: it overwrites its checkpoint. `folders`: its checkpoints are
    directories. `ways`: the first that holds is taken; without one it cannot be resumed, for the reason `cannot`, or,
    `only_if_resumable`, is not recognised at all. `step`: a regular expression, its first group the step in a name.
    `stop_signal`, and `grace_s` if it saves on it: unless the user says otherwise. `advice`: what to tell the user when
    the mark holds. `limits`: what to know, for the documentation.
    """

    name: str
    title: str
    known_by: Predicate
    entries: tuple[str, ...] = ()
    places: tuple[CheckpointLocation, ...] = ()
    anywhere: tuple[str, ...] = ()
    finds: "Callable[[Facts], RecipeMatch] | None" = None
    needs: tuple[str, ...] = ()
    only_if_resumable: bool = False
    in_place: bool = False
    folders: bool = False
    ways: tuple[Way, ...] = ()
    step: str | None = None
    stop_signal: str | None = None
    grace_s: float | None = None
    on_signal: tuple[OnSignal, ...] = ()
    advice: tuple[tuple[Predicate, str], ...] = ()
    cannot: str = ""
    limits: str = ""


class RecipeMatch(msgspec.Struct, frozen=True):
    """What `finds` found: patterns, one overwritten in place among them, the step in a name; `rerun`: the script
    loads what it saves, if it is there."""

    patterns: tuple[str, ...] = ()
    in_place: bool = False
    step: str | None = None
    rerun: str = ""
