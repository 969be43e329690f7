"""Decides which run wrote a file, from what was seen of every run that may have. Pure.

A file counts as a run's checkpoint only where exactly one run is left. It is better to believe in too few: from a file
of another run a chain would go on with foreign work.
"""

from collections.abc import Collection
from enum import StrEnum

import msgspec

RunIds = frozenset[str]


class How(StrEnum):
    """How it is known that a run wrote a checkpoint. The values are stored."""

    SAID = "said"
    """It announced it."""
    OPEN = "open"
    """A process of the run was seen to have it open for writing."""
    PLACE = "place"
    """It lies in a place of this run, and the places of the others are elsewhere."""
    BYTES = "bytes"
    """The others wrote too little while it was written."""
    ALONE = "alone"
    """No other run lived then."""


class Evidence(msgspec.Struct, frozen=True):
    """What is known of one file, as it is now. All are ids of runs.

    `lived`: had processes while it was written. `said`: announced it. `opened`: were seen to have it open for writing.
    `elsewhere`: have a place of their own, by the same argument, variable or history that leads another run here.
    `idle`: wrote too little meanwhile to have written it. `busy`: wrote enough. Of the others that is unknown.
    `owners`: are not final, and wrote this very path before.
    `named`: a pattern that the user or a recipe gave names the file. A process outside the trees that we know (a
    container's) may have written it then, so that nobody's count of bytes says anything.
    """

    lived: RunIds
    named: bool = False
    said: RunIds = frozenset()
    opened: RunIds = frozenset()
    elsewhere: RunIds = frozenset()
    idle: RunIds = frozenset()
    busy: RunIds = frozenset()
    owners: RunIds = frozenset()


class Attribution(msgspec.Struct, frozen=True):
    """`writer`: the run that wrote the file as it is now, and how that is known; None where it is not.

    `suspects`: the runs that may have, where it is not known. `shared_with`: runs that are not final and wrote the same
    path before: to none of them the file itself may count, only the copy that was kept of it in time.
    """

    writer: str | None = None
    how: How | None = None
    suspects: RunIds = frozenset()
    shared_with: RunIds = frozenset()


def attribute(evidence: Evidence) -> Attribution:
    """Return who wrote a file: by the first kind of evidence that leaves exactly one run."""
    seen = evidence.said | evidence.opened
    if len(seen) > 1:
        return Attribution(suspects=seen)
    if seen:
        (writer,) = seen
        return _by(evidence, writer, How.SAID if evidence.said else How.OPEN)
    possible = evidence.lived - evidence.idle
    if not possible and evidence.named:
        possible = evidence.lived
    here = possible - evidence.elsewhere
    if len(here) == 1 and evidence.elsewhere:
        return _by(evidence, next(iter(here)), How.PLACE)
    if len(possible) != 1:
        return Attribution(suspects=possible)
    (writer,) = possible
    if writer in evidence.elsewhere:
        # Whoever belongs here may have written it from a container, which is in no count of bytes.
        return Attribution(suspects=evidence.lived)
    alone = writer not in evidence.busy and evidence.lived == possible
    return _by(evidence, writer, How.ALONE if alone else How.BYTES)


def _by(evidence: Evidence, writer: str, how: How) -> Attribution:
    return Attribution(writer, how, shared_with=evidence.owners - {writer})


def doubt(suspects: Collection[str]) -> str:
    """Return why a file counts for none of the runs that may have written it."""
    return f"{max(len(suspects), 2)} runs may have written it"
