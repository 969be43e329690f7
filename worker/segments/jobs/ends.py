"""Words what a job's files and its cluster say of its end."""

from typing import TYPE_CHECKING

from backprop.scheduler.outcome.job_end import JobEnd, JobEndKind

if TYPE_CHECKING:
    from backprop.worker.executor.cluster.executor import JobLook


def job_end(look: "JobLook") -> JobEnd:
    """Return what the end of a job means beside what its files say."""
    verdict = look.verdict
    if verdict.never_began:
        kind = JobEndKind.WITHDRAWN if look.withdrawn else JobEndKind.NEVER_BEGAN
        return JobEnd(
            JobEndKind.REFUSED if look.refused else kind, look.gives_up or "it never began", look.job
        )
    if verdict.phase is None:
        return JobEnd(JobEndKind.ITSELF, "", look.job)
    return JobEnd(JobEndKind.of(verdict.phase), f"{verdict.phase} by the cluster", look.job)
