"""Checks of a cluster, for `backprop doctor --on`: its folder, its scheduler, and a job of a moment."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backprop.cli.doctor.finding import Finding, bad, guarded, note, ok
from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home import shared_folder

PATIENCE_S: Final = 120.0
CLOCK_S: Final = 5.0


def check_cluster(name: str, cluster: Cluster | None) -> list[Finding]:
    """Return what is found of one cluster. Raises BadCommand where it is not configured."""
    if cluster is None:
        raise BadCommand(f"{name} is no cluster of your config.json; see: backprop clusters")
    from backprop.worker.executor.cluster.slurm import Slurm

    engine = Slurm(cluster)
    folder = guarded("folder", lambda: _folder(cluster))
    found = [folder, guarded("scheduler", lambda: _scheduler(engine.facts))]
    if all(one.level.value != "bad" for one in found):
        found.append(guarded("probe", lambda: _probe(cluster)))
    return found


def _folder(cluster: Cluster) -> Finding:
    share = Path(cluster.folder)
    if not share.exists():
        return bad("folder", f"{share} does not exist", f"make it on the share: mkdir -m 700 {share}")
    shared_folder.check(share)
    if not os.access(share, os.W_OK | os.X_OK):
        return bad("folder", f"{share} cannot be written")
    return ok("folder", f"{share} is yours and closed to others")


def _scheduler(facts: Callable[[], dict[str, str]]) -> Finding:
    begun_s = time.monotonic()
    try:
        known = facts()
    except subprocess.TimeoutExpired:
        return bad("scheduler", "scontrol has not answered for a minute", "is slurmctld running?")
    except OSError as error:
        return bad(
            "scheduler", f"scontrol: {error.strerror}", "is this a submit host, and slurmctld running?"
        )
    took_s = time.monotonic() - begun_s
    told = (
        f"{known.get('SLURM_VERSION', 'Slurm')} answered in {took_s:.1f} s; KillWait {known.get('KillWait', '?')},"
        f" MinJobAge {known.get('MinJobAge', '?')}, {known.get('ProctrackType', '?')}"
    )
    if known.get("ProctrackType") not in ("proctrack/cgroup", None):
        advice = "processes may survive where node agent and supervisor are both killed; proctrack/cgroup ends them"
        return note("scheduler", told, advice)
    return ok("scheduler", told)


def _probe(cluster: Cluster) -> Finding:
    from backprop.worker.executor.cluster.engines import engine_of
    from backprop.worker.executor.cluster.probe import ProbeSilent, probe

    try:
        told = probe(cluster, engine_of(cluster), PATIENCE_S)
    except ProbeSilent as error:
        return bad("probe", str(error), "its options, its folder and its python are those of config.json")
    except OSError as error:
        return bad("probe", f"{error.filename or cluster.folder}: {error.strerror}")
    seen = f"a job on {told.host} answered after {told.took_s:.1f} s, with Python {told.python[0]}.{told.python[1]}"
    if "seen.json" not in told.names:
        return bad("probe", f"{seen}, and does not see the folder: {cluster.folder} is another one there")
    if not told.once:
        return bad("probe", f"{seen}; link(2) replaces there what exists, so a run could begin twice")
    if told.python < (3, 11, 0):
        return bad(
            "probe", f"{seen}; the node agent needs 3.11", "name another one by the key python of the cluster"
        )
    if told.uid != os.getuid():
        return bad("probe", f"{seen}, as uid {told.uid}: you are {os.getuid()}")
    apart_s = abs(told.at_s - time.time())
    if apart_s > CLOCK_S:
        return note("probe", f"{seen}; its clock is {apart_s:.0f} s off, which is no harm")
    return ok("probe", f"{seen}, and sees the folder")
