"""Gives tests a Slurm of two nodes, one for each process of pytest, and a home that knows it as `lab`."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.harness import Bench, wait_until
from tests.support.lab import Lab
from tests.support.slurm_cluster import SlurmCluster, missing, running


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    if (why := missing()) is not None:
        pytest.skip(f"no Slurm here: {why}")
    folder = Path(tempfile.mkdtemp(prefix="bp-slurm-"))
    try:
        with running(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def lab(bench: Bench, slurm: SlurmCluster, tmp_path: Path) -> Generator[Lab]:
    folder = tmp_path / "share"
    folder.mkdir(mode=0o700)
    lab = Lab(bench, slurm, folder)
    yield lab
    for worker in bench.workers:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
            worker.wait()
    mine = [job for job, _, _ in slurm.jobs()]
    if mine:
        slurm.ask("scancel", *mine, check=False)
        wait_until(lambda: not slurm.jobs(), timeout_s=40, saw=slurm.jobs)
    # Leaders of jobs end with their job; the bench asserts that nothing is left.
    os.sync()
