"""Finds the one process whose VRAM is to be moved, or says why this run's cannot be.

Only one CUDA process on one whole GPU: of two, every call about the second hangs while the first is locked. Who uses a
GPU is the driver's word; where its pids are not those of this machine, as in some containers, nobody is found.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.governor.suspension import could_return
from backprop.worker.supervisor import process_tree

MPS_FOLDER: Final = "/tmp/nvidia-mps"


class Target(msgspec.Struct, frozen=True):
    """The process, and how much VRAM it has on which GPU."""

    process: process_tree.Process
    gpu_uuid: str
    mib: int


class NoTarget(Exception):
    """Nothing of this run can be moved. The text says why."""


def find_target(gpu_uuids: Sequence[str], gpus: Sequence[Gpu], pids: Collection[int]) -> Target:
    """Return what would be moved of a run on `gpu_uuids` whose processes are `pids`. `gpus`: a reading. Raises
    NoTarget."""
    if len(gpu_uuids) != 1:
        raise NoTarget("it runs on several GPUs" if gpu_uuids else "it has no GPU")
    gpu = next((gpu for gpu in gpus if gpu.uuid == gpu_uuids[0]), None)
    if gpu is None or gpu.error is not None or gpu.free_mib is None:
        raise NoTarget("its GPU cannot be read")
    if gpu.unified:
        raise NoTarget("its GPU has no memory of its own")
    if gpu.uuid.startswith("MIG-"):
        raise NoTarget("it runs on a part of a GPU (MIG)")
    if (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_FOLDER)) / "control").exists():
        raise NoTarget("CUDA MPS is on")
    users = {pid for each in gpus for pid, _ in each.used_by_pid if pid in pids}
    if len(users) > 1:
        raise NoTarget(f"it has {len(users)} CUDA processes")
    mib = next((mib for pid, mib in gpu.used_by_pid if pid in pids), None)
    process = process_tree.identify(users.pop()) if users else None
    if process is None or mib is None:
        raise NoTarget("the driver does not say which of its processes uses the GPU")
    if not could_return(mib, gpu):
        raise NoTarget(f"it uses {amount(mib)}, too much of its GPU to be sure to fit there again")
    return Target(process, gpu.uuid, mib)
