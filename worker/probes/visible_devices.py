"""Restricts a reading to the GPUs that the worker's own CUDA_VISIBLE_DEVICES names.

Entries are indices, UUIDs or prefixes of UUIDs, as CUDA takes them. Indices count in the order of the PCI bus, which
runs get too.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.reading import Reading

CUDA: Final = ("CUDA_VISIBLE_DEVICES",)
ROCM: Final = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def only_visible(reading: Reading, environment: Mapping[str, str], names: tuple[str, ...] = CUDA) -> Reading:
    """Leave out the GPUs that the first of the variables that is set does not name.

    An empty value or "-1" names none: the worker then runs as on a machine without GPUs. A value that names
    no GPU that exists is a mistake, and becomes the reading's problem."""
    name = next((name for name in names if name in environment), None)
    if name is None or not reading.gpus:
        return reading
    entries = [entry for part in environment[name].split(",") if (entry := part.strip())]
    if not entries or entries[0] in ("-1", "NoDevFiles", "none", "void"):
        return msgspec.structs.replace(reading, gpus=())
    gpus = tuple(gpu for gpu in reading.gpus if any(_named(gpu, entry) for entry in entries))
    if not gpus:
        return msgspec.structs.replace(
            reading, gpus=(), problem=f"{name}={environment[name]} names no GPU of this machine"
        )
    return msgspec.structs.replace(reading, gpus=gpus)


def _named(gpu: Gpu, entry: str) -> bool:
    if entry.isdigit():
        return gpu.index == int(entry)
    # CUDA takes "MIG-GPU-<parent>/1/0" too, an old spelling that NVML no longer reports; it is not understood.
    return gpu.uuid.lower().startswith(entry.lower())
