"""Speaks to Slurm: the words of sbatch, squeue and scancel, and what their answers mean. Nothing else knows Slurm.

A job's environment is this worker's own, but for what Slurm needs: that of the run reaches its node through the share,
and so is in no accounting database and no `scontrol show job`. `--export=NIL` would do so too, and hand every srun of
the run an empty environment through SLURM_EXPORT_ENV. A requeue is ours alone: Slurm's would begin the same segment
again.
"""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from backprop.scheduler.config.clusters import Cluster
from backprop.worker.executor.cluster.engine import (
    ClusterJob,
    Full,
    JobSeen,
    JobSnapshot,
    Phase,
    Refused,
    Unsure,
)

TIMEOUT_S: Final = 60.0
"""MessageTimeout is 10 s by default, and sbatch tries several times."""
CHECK_S: Final = 3.0
NEEDED: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "SLURM_CONF")
PHASES: Final = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
        Phase.WAITS,
    ),
    **dict.fromkeys(
        ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "POWER_UP_NODE"),
        Phase.LIVES,
    ),
    "COMPLETED": Phase.DONE,
    "CANCELLED": Phase.CANCELLED,
    "PREEMPTED": Phase.PREEMPTED,
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), Phase.OVERTIME),
    "OUT_OF_MEMORY": Phase.OUT_OF_MEMORY,
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL"), Phase.NODE_LOST),
    **dict.fromkeys(("FAILED", "LAUNCH_FAILED", "RECONFIG_FAIL"), Phase.FAILED),
}  # fmt: skip
"""squeue(1), JOB STATE CODES."""
NEVER: Final = frozenset(
    {
        "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
        "DependencyNeverSatisfied", "launch failed requeued held", "AccountNotAllowed", "QOSNotAllowed",
    }
)  # fmt: skip
"""Reasons for which a job waits for ever: squeue(1), JOB REASON CODES."""
BY_ADMIN: Final = frozenset({"JobHeldUser", "JobHeldAdmin"})
FULL: Final = re.compile(
    r"MaxSubmitJob|MaxJobs|temporarily unable to accept|Slurm temporarily|Resource temporarily unavailable"
)
REFUSED: Final = re.compile(
    r"[Ii]nvalid (?:partition|account|qos|feature|generic resource|wckey|job|node|reservation|dependency|time|"
    r"constraint|gres|cpu|memory|licen[cs]e|hold|nice|option|argument)"
    r"|node configuration is not available|[Mm]emory specification (?:is invalid|can ?not be satisfied)"
    r"|[Rr]eservation is invalid"
    r"|Requested time limit is invalid|[Tt]ime limit specification|Node count specification invalid"
    r"|More processors requested|violates accounting/QOS policy|not permitted to use this partition"
    r"|[Aa]ccess/permission denied|unrecognized option|invalid option|requires an argument|ambiguous"
    r"|partition configuration not available|not (?:a )?valid|No partition specified|Invalid --"
)
"""Words of slurm_strerror (src/common/slurm_errno.c) and of sbatch's own parser (src/sbatch/opt.c)."""
_FORMAT: Final = "%i|%T|%k|%N|%r"
_FIELDS: Final = 5
_STEP: Final = (
    "srun --ntasks=1 --input=none --export=ALL ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}"
)
"""A step hears of a preemption with a GraceTime, which a plain batch script does not."""
_TOKEN: Final = re.compile(r"[0-9a-f]{16}")


class Slurm:
    """Implements `engine.Engine` for one cluster of the configuration."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def words(self, job: ClusterJob) -> tuple[str, ...]:
        gpus = f"{job.gpu_type}:{job.gpus}" if job.gpu_type is not None else str(job.gpus)
        wanted = f"--gres=gpu:{gpus}" if self._cluster.gpu_option == "gres" else f"--gpus-per-node={gpus}"
        shell = "" if self._cluster.as_step else "B:"
        return (
            "sbatch",
            "--parsable",
            "--no-requeue",
            "--export=ALL",
            f"--job-name={job.name}",
            f"--comment={job.token}",
            f"--time={job.limit_min}",
            f"--signal={shell}USR2@{job.warn_s}",
            "--chdir=/",
            f"--output={job.folder}/job.out",
            "--open-mode=append",
            *((wanted,) if job.gpus else ()),
            *((f"--cpus-per-task={job.cpus}",) if job.cpus is not None else ()),
            *((f"--mem={job.mem_mib}M",) if job.mem_mib is not None else ()),
            *job.options,
        )

    def submit(self, job: ClusterJob) -> str:
        try:
            done = _asked(self.words(job), TIMEOUT_S, self._script(job))
        except subprocess.TimeoutExpired:
            raise Unsure(f"sbatch has not answered for {TIMEOUT_S:g} s") from None
        except OSError as error:
            raise Unsure(f"sbatch: {error.strerror}") from error
        said = _said(done.stderr)
        if done.returncode == 0:
            # A site's wrapper may print lines of its own around it.
            lines = [line.strip().partition(";")[0] for line in done.stdout.splitlines()]
            number = next((line for line in reversed(lines) if line.isdecimal()), None)
            if number is not None:
                return number
            raise Unsure(f"sbatch gave no number: {said or done.stdout.strip()[:200] or 'nothing'}")
        if FULL.search(done.stderr):
            raise Full(said)
        if REFUSED.search(done.stderr):
            raise Refused(said)
        raise Unsure(said or f"sbatch exited {done.returncode}")

    def snapshot(self) -> JobSnapshot | None:
        begun_s = time.monotonic()
        words = ("squeue", "--me", "--array", "--states=all", "-o", _FORMAT)
        try:
            done = _asked(words, TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        lines = done.stdout.splitlines()
        # Without its heading, or with a last line that was cut off, it is no answer.
        if (
            done.returncode
            or not lines
            or lines[0].count("|") != _FIELDS - 1
            or not done.stdout.endswith("\n")
        ):
            return None
        jobs: dict[str, JobSeen] = {}
        for line in lines[1:]:
            fields = line.split("|", _FIELDS - 1)
            if len(fields) < _FIELDS:
                return None
            number, state, token, node, reason = fields
            if _TOKEN.fullmatch(token):
                jobs[token] = _seen(number, state, node, reason)
        return JobSnapshot(begun_s, jobs)

    def cancel(self, jobs: Sequence[str]) -> None:
        numbers = [job for job in jobs if job.isdecimal()]
        if not numbers:
            return  # scancel without a number may mean all of them
        try:
            _asked(("scancel", *numbers), TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            return

    def check(self, job: ClusterJob) -> str | None:
        words = (*self.words(job), "--test-only")
        try:
            done = _asked(words, CHECK_S, self._script(job))
        except (OSError, subprocess.TimeoutExpired):
            return None
        refused = done.returncode != 0 and REFUSED.search(done.stderr) and not FULL.search(done.stderr)
        return _said(done.stderr) if refused else None

    def facts(self) -> dict[str, str]:
        """Return the site's configuration, as `scontrol show config` has it. Raises OSError, TimeoutExpired."""
        done = _asked(("scontrol", "show", "config"), TIMEOUT_S)
        if done.returncode:
            raise OSError(0, _said(done.stderr))
        pairs = (line.partition("=") for line in done.stdout.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def limit_min(self) -> float | None:
        """Return the time limit of the partition that the cluster's options name, in minutes; None for none, or where
        nobody can say."""
        words = ("sinfo", "-h", "-o", "%l", *_partition(self._cluster.options))
        try:
            done = _asked(words, CHECK_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        limits = [_minutes(line.strip()) for line in done.stdout.splitlines()] if done.returncode == 0 else []
        known = [limit for limit in limits if limit is not None]
        return max(known) if limits and len(known) == len(limits) else None

    def _script(self, job: ClusterJob) -> str:
        command = shlex.join(job.command)
        if self._cluster.as_step:
            command = f"{_STEP} {command}"
        return f"#!/bin/bash\nexec {command}\n"


def _partition(options: Sequence[str]) -> tuple[str, ...]:
    """Return the option that names a partition among those of sbatch; none where none does."""
    for number, word in enumerate(options):
        if word in ("-p", "--partition") and number + 1 < len(options):
            return ("-p", options[number + 1])
        if word.startswith("--partition="):
            return ("-p", word.partition("=")[2])
        if word.startswith("-p") and len(word) > 2:
            return ("-p", word[2:])
    return ()


def _minutes(text: str) -> float | None:
    """Return Slurm's DAYS-HOURS:MINUTES:SECONDS in minutes; None for "infinite" and whatever else it is."""
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in (*parts, days or "0")) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    seconds = sum(number * 60**power for power, number in enumerate(reversed(numbers)))
    return int(days or "0") * 1440 + (seconds / 60 if len(numbers) > 1 else numbers[0])


def _seen(number: str, state: str, node: str, reason: str) -> JobSeen:
    word = state.split()[0] if state.split() else ""
    return JobSeen(
        job=number,
        phase=PHASES.get(word, Phase.UNKNOWN),
        words=reason if reason not in ("", "None") else "",
        node=node if node and not node.startswith("(") else None,
        never=reason in NEVER or reason in BY_ADMIN,
        by_admin=reason in BY_ADMIN,
    )


def _asked(words: Sequence[str], timeout_s: float, script: str = "") -> "subprocess.CompletedProcess[str]":
    """Run one of Slurm's commands. Raises OSError, TimeoutExpired."""
    environment = {name: os.environ[name] for name in NEEDED if name in os.environ}
    return subprocess.run(
        words,
        input=script,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env=environment,
        cwd="/",
        check=False,
    )


def _said(stderr: str) -> str:
    """Return what a command printed as one line, without its own name."""
    lines = [re.sub(r"^s\w+: (?:error: |fatal: )?", "", line.strip()) for line in stderr.splitlines()]
    return "; ".join(line for line in lines if line)[:400]
