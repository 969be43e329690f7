"""The memory of the fake GPUs that CUDA_VISIBLE_DEVICES names."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))
from allocate import allocate, memory_mib

_MIB = 1024 * 1024
_taken_mib = 0


def is_available() -> bool:
    return "FAKE_NVML_DIR" in os.environ


def device_count() -> int:
    return len(_uuids())


def mem_get_info() -> tuple[int, int]:
    """(free, total) of the first visible GPU, in bytes."""
    free_mib, total_mib = memory_mib(_uuids()[0])
    return free_mib * _MIB, total_mib * _MIB


def take(size: int) -> None:
    """Take `size` bytes more on the first visible GPU, as PyTorch does without a device index."""
    global _taken_mib
    mib = _taken_mib + size // _MIB
    allocate(Path(os.environ["FAKE_NVML_DIR"]), _uuids()[0], mib, held_mib=_taken_mib)
    _taken_mib = mib


def wait_while_moved() -> None:
    """Stand still while the memory of this process is somewhere else, as every call of CUDA does."""
    note = Path(os.environ["FAKE_NVML_DIR"]) / "cuda" / str(os.getpid())
    while note.exists():
        time.sleep(0.005)


def _uuids() -> list[str]:
    return [uuid for uuid in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if uuid]
