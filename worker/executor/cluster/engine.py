"""Defines what a cluster's own scheduler is asked: four verbs, their answers, and what kinds of refusal there are.

Everything else about jobs is ours and the same for every engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Phase(StrEnum):
    """Where a job is in its life, for the engine."""

    WAITS = "waits"
    LIVES = "lives"
    DONE = "done"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    OVERTIME = "over its time limit"
    OUT_OF_MEMORY = "out of memory"
    NODE_LOST = "its node was lost"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The engine has a word for it that is not known here: nothing is concluded from it."""


OVER = frozenset(
    {
        Phase.DONE, Phase.CANCELLED, Phase.PREEMPTED, Phase.OVERTIME, Phase.OUT_OF_MEMORY, Phase.NODE_LOST,
        Phase.FAILED,
    }
)  # fmt: skip


@dataclass(frozen=True)
class ClusterJob:
    """What is handed over. `name`: for people. `token`: by which it is found again. `folder`: of the segment, as the
    nodes see it. `command`: what the job becomes. `limit_min`: minutes after which the engine ends it. `warn_s`:
    seconds before that at which it is told. `mem_mib`: None for the engine's default, as `cpus`. `options`: words of
    the user."""

    name: str
    token: str
    folder: Path
    command: tuple[str, ...]
    limit_min: int
    warn_s: int
    gpus: int = 0
    gpu_type: str | None = None
    cpus: int | None = None
    mem_mib: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobSeen:
    """One job in a snapshot. `words`: the engine's own, such as why it waits. `never`: a wait that does not end by
    itself. `by_admin`: its user can end that wait, or an administrator."""

    job: str
    phase: Phase
    words: str = ""
    node: str | None = None
    never: bool = False
    by_admin: bool = False


@dataclass(frozen=True)
class JobSnapshot:
    """All jobs of ours at one moment, by token. `begun_s`: monotonic, before the engine was asked."""

    begun_s: float
    jobs: Mapping[str, JobSeen] = field(default_factory=dict[str, JobSeen])


class Refused(Exception):
    """The engine would never run such a job. The text is the engine's."""


class Full(Exception):
    """The engine takes no more jobs of this user now."""


class Unsure(Exception):
    """Whether the job is in is not known: it is looked for by its token."""


class Engine(Protocol):
    def submit(self, job: ClusterJob) -> str:
        """Hand a job over; return the engine's number of it. Raises Refused, Full, Unsure."""
        ...

    def words(self, job: ClusterJob) -> tuple[str, ...]:
        """Return the command that a job is handed over with."""
        ...

    def snapshot(self) -> JobSnapshot | None:
        """Return all jobs of ours; None when the engine cannot say."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """Ask for the end of these jobs. Best effort; nothing for an empty list."""
        ...

    def check(self, job: ClusterJob) -> str | None:
        """Return why the job could never run, in the engine's words; None when it could, or nobody can say."""
        ...
