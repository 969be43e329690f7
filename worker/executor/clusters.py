"""Holds a worker's executors of clusters, and loads what they need once a run goes to one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.home.layout import Home
from backprop.worker.user_files import UserFiles

if TYPE_CHECKING:
    from backprop.worker.executor.cluster.executor import ClusterExecutor


class Clusters:
    """`configured`: the clusters of the user's configuration, by name."""

    def __init__(self, home: Home, files: UserFiles, configured: Mapping[str, Cluster]) -> None:
        self._home = home
        self._files = files
        self.configured = configured
        self.live: dict[str, ClusterExecutor] = {}
        """Those that have been used."""

    def of(self, name: str, share: str | None) -> "ClusterExecutor":
        """Return a cluster's executor. `share`: the folder of a run there, for one that is not configured any more."""
        if name not in self.live:
            from backprop.worker.executor.cluster.engines import NoEngine, engine_of
            from backprop.worker.executor.cluster.executor import ClusterExecutor

            cluster = self.configured.get(name)
            engine = engine_of(cluster) if cluster is not None else NoEngine()
            known = cluster or Cluster(engine="slurm", folder=share or "/")
            self.live[name] = ClusterExecutor(name, known, self._home, self._files, engine)
        return self.live[name]

    def wake_fds(self) -> list[int]:
        """Return descriptors that become readable when something of a job may have changed."""
        return [fd for executor in self.live.values() for fd in executor.wake_fds()]

    def close(self) -> None:
        """Leave all jobs alone."""
        for executor in self.live.values():
            executor.close()
