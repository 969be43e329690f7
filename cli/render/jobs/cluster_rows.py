"""Says of each cluster whether it answers, how many jobs it has of this home, and why nothing is handed to it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backprop.cli.render.json_views import clock, iso
from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.clusters import ClusterRecord

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database


@dataclass(frozen=True)
class ClusterView:
    """One cluster. `known`: what workers noted of it; None for nothing. `counts`: its runs by state."""

    name: str
    cluster: Cluster | None
    known: ClusterRecord | None
    counts: Mapping[State, int]

    def as_json(self) -> dict[str, Any]:
        """Return it as in `clusters --json`."""
        known = self.known
        return {
            "name": self.name,
            "engine": self.cluster.engine if self.cluster is not None else None,
            "folder": self.cluster.folder if self.cluster is not None else None,
            "max_jobs": self.cluster.max_jobs if self.cluster is not None else None,
            "queued": self.counts.get(State.QUEUED, 0),
            "submitted": self.counts.get(State.SUBMITTED, 0),
            "running": self.counts.get(State.RUNNING, 0),
            "jobs": known.jobs if known is not None else None,
            "answered_at": iso(known.answered_at_s) if known is not None else None,
            "closed_for": known.why if known is not None else None,
            "closed_since": iso(known.since_s) if known is not None else None,
            "closed_until": iso(known.until_s) if known is not None else None,
        }

    def row(self) -> tuple[str, ...]:
        """Return it as a line of a table, after NAME ENGINE QUEUED WAITING RUNNING OF AT MOST ANSWERED NOW."""
        known = self.known
        answered = "-" if known is None or known.answered_at_s is None else clock(known.answered_at_s)
        return (
            self.name,
            self.cluster.engine if self.cluster is not None else "not configured",
            str(self.counts.get(State.QUEUED, 0)),
            str(self.counts.get(State.SUBMITTED, 0)),
            str(self.counts.get(State.RUNNING, 0)),
            str(self.cluster.max_jobs) if self.cluster is not None else "-",
            answered,
            self.sentence(),
        )

    def sentence(self) -> str:
        """Return why nothing is handed over now; that it takes jobs where nothing speaks against it."""
        known = self.known
        if self.cluster is None:
            return "nothing is handed over: it is not in config.json"
        if known is not None and known.why is not None:
            until = f"; tried again at {clock(known.until_s)}" if known.until_s else ""
            ahead = known.until_s is None or known.until_s > time.time()
            return f"since {clock(known.since_s)}: {known.why}{until if ahead else ''}"
        live = self.counts.get(State.SUBMITTED, 0) + self.counts.get(State.RUNNING, 0)
        return "full" if live >= self.cluster.max_jobs else "takes jobs"


def views(database: "Database | None", configured: Mapping[str, Cluster]) -> list[ClusterView]:
    """Return every cluster that is configured or has runs, by name. Raises DatabaseBusy."""
    from backprop.scheduler.store import clusters
    from backprop.scheduler.store.reads import queries

    known = clusters.read(database) if database is not None else {}
    used = queries.clusters(database) if database is not None else []
    return [
        ClusterView(
            name,
            configured.get(name),
            known.get(name),
            queries.cluster_counts(database, name) if database is not None else {},
        )
        for name in sorted({*configured, *used})
    ]
