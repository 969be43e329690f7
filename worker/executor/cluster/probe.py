"""Finds out by a small job whether a cluster can run segments: what its nodes see of the shared folder, and with what.

Nothing is queued. The job makes one file in a folder of its own below the shared one, and that is removed afterwards.
"""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec

from backprop.scheduler.config.clusters import Cluster
from backprop.worker.executor.cluster.engine import ClusterJob, Engine, Full, Refused, Unsure
from backprop.worker.supervisor.once import make_once

PROGRAM = """
import json, os, sys, time
folder = sys.argv[1]
names = sorted(os.listdir(folder))
draft = folder + '/draft'
open(draft, 'w').write('x')
os.link(draft, folder + '/linked')
try:
    os.link(draft, folder + '/linked')
    once = False
except FileExistsError:
    once = True
told = {'names': names, 'once': once, 'python': list(sys.version_info[:3]), 'host': os.uname().nodename,
        'at_s': time.time(), 'uid': os.getuid(), 'gpus': os.environ.get('CUDA_VISIBLE_DEVICES')}
open(folder + '/told.tmp', 'w').write(json.dumps(told))
os.rename(folder + '/told.tmp', folder + '/told.json')
"""


class ProbeAnswer(msgspec.Struct, frozen=True):
    """What the probe told. `names`: the files that its node saw. `once`: a second link of one name was refused.
    `at_s`: by the node's clock. `took_s`: from the hand-over to its answer."""

    names: tuple[str, ...]
    once: bool
    python: tuple[int, int, int]
    host: str
    at_s: float
    uid: int
    gpus: str | None = None
    took_s: float = 0.0


class ProbeSilent(Exception):
    """The probe did not answer. The text says what became of it."""


def probe(cluster: Cluster, engine: Engine, patience_s: float) -> ProbeAnswer:
    """Run the probe. Raises ProbeSilent; OSError where the shared folder cannot be written."""
    folder = Path(cluster.folder) / "doctor" / os.urandom(4).hex()
    folder.mkdir(mode=0o700, parents=True)
    job: str | None = None
    try:
        make_once(folder / "seen.json", {"format": 1})
        begun_s = time.monotonic()
        token = os.urandom(8).hex()
        python = cluster.python or sys.executable
        command = (python, "-I", "-S", "-c", PROGRAM, str(folder))
        try:
            job = engine.submit(
                ClusterJob(
                    "bp-doctor", token, folder, command, limit_min=1, warn_s=10, options=cluster.options
                )
            )
        except (Refused, Full, Unsure) as error:
            raise ProbeSilent(str(error)) from error
        while not (folder / "told.json").exists():
            if time.monotonic() - begun_s > patience_s:
                raise ProbeSilent(_became(engine, token, job, folder))
            os.listdir(folder)  # noqa: PTH208 - a share is asked anew
            time.sleep(0.2)
        told = msgspec.json.decode((folder / "told.json").read_bytes(), type=ProbeAnswer)
        return msgspec.structs.replace(told, took_s=time.monotonic() - begun_s)
    finally:
        if job is not None and not (folder / "told.json").exists():
            engine.cancel((job,))
        shutil.rmtree(folder, ignore_errors=True)


def _became(engine: Engine, token: str, job: str, folder: Path) -> str:
    snapshot = engine.snapshot()
    seen = snapshot.jobs.get(token) if snapshot is not None else None
    printed = ""
    with contextlib.suppress(OSError):
        printed = (folder / "job.out").read_text(errors="replace").strip().splitlines()[-1:][0]
    if seen is None:
        return f"job {job}: nobody says what became of it"
    return f"job {job} is {seen.phase}{f' ({seen.words})' if seen.words else ''}{f': {printed}' if printed else ''}"
