"""Describes how a cluster's job ended, as far as the cluster tells."""

from enum import StrEnum

import msgspec


class JobEndKind(StrEnum):
    NEVER_BEGAN = "never began"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out of memory"
    ITSELF = "by itself"

    @staticmethod
    def of(phase: str) -> "JobEndKind":
        """Return the kind of end that an engine's word for a job says."""
        known = {"cancelled": JobEndKind.CANCELLED, "out of memory": JobEndKind.OUT_OF_MEMORY}
        itself = ("done", "failed", "waits", "lives", "unknown")
        return JobEndKind.ITSELF if phase in itself else known.get(phase, JobEndKind.PREEMPTED)


class JobEnd(msgspec.Struct, frozen=True):
    """How a job ended. `words`: why, for people. `job`: the cluster's number of it."""

    kind: JobEndKind
    words: str
    job: str | None = None

    @property
    def name(self) -> str:
        return f"its job {self.job}" if self.job is not None else "its job"
