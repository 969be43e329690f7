"""Names the engines that clusters may have."""

from collections.abc import Sequence

from backprop.scheduler.config.clusters import Cluster
from backprop.worker.executor.cluster.engine import ClusterJob, Engine, JobSnapshot, Unsure


class NoEngine:
    """Stands for that of a cluster which is not configured any more: nobody can say anything of its jobs."""

    def submit(self, job: ClusterJob) -> str:
        raise Unsure(f"{job.name}: its cluster is not configured any more")

    def words(self, job: ClusterJob) -> tuple[str, ...]:
        return job.options

    def snapshot(self) -> JobSnapshot | None:
        return None

    def cancel(self, jobs: Sequence[str]) -> None:
        pass

    def check(self, job: ClusterJob) -> str | None:
        return f"{job.name}: its cluster is not configured any more"


def engine_of(cluster: Cluster) -> Engine:
    """Return the engine of a cluster."""
    from backprop.worker.executor.cluster.slurm import Slurm

    return Slurm(cluster)
