"""Allocates on the fake GPU, holds the memory for a while, and ends: a training script without a GPU.

`--delay-s` before it allocates, as imports and CUDA's start take time; `--hold-s` after. Where the GPU has
less left it fails with the words and the exit code of a CUDA out-of-memory error.
"""

import argparse
import fcntl
import os
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, required=True)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--hold-s", type=float, default=1.0)
    options = parser.parse_args()
    time.sleep(options.delay_s)
    for uuid in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
        allocate(Path(os.environ["FAKE_NVML_DIR"]), uuid, options.mib)
    print("allocated", flush=True)
    time.sleep(options.hold_s)


def allocate(folder: Path, uuid: str, mib: int, held_mib: int = 0) -> None:
    """Hold `mib` of the GPU as this process's whole share. `held_mib`: how much of that it has already."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a card hands out its memory one request after another
        if memory_mib(uuid)[0] < mib - held_mib:
            print(
                f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {mib} MiB.", file=sys.stderr
            )
            raise SystemExit(1)
        path = folder / "alloc" / f"{os.getpid()}.{uuid}"
        draft = path.with_name(f".{path.name}")
        draft.write_text(f"{uuid} {os.getpid()} {mib}\n")
        draft.replace(path)


def memory_mib(uuid: str) -> tuple[int, int]:
    """Return (free, total) by the driver's own answer: NVML is the one that knows which processes live."""
    import pynvml

    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        if pynvml.nvmlDeviceGetUUID(handle) == uuid:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            return memory.free // (1024 * 1024), memory.total // (1024 * 1024)
    print("RuntimeError: No CUDA GPUs are available", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
