"""Holds VRAM with a known content, for somebody who moves it out and in: a training without anything to lose.

Says "ready DIGEST" once its memory is full. For each line on its standard input it reads the memory back and says
"holds DIGEST"; for the line "change" it fills it anew first. At the end of its input it ends. It takes the first GPU
that CUDA_VISIBLE_DEVICES names. Standard library only, imports nothing of Backprop.
"""

import ctypes
import sys
import zlib

from libcuda import CudaError, Driver, NoCuda

MIB = 1024 * 1024
MOST_READ_MIB = 512
"""Of more memory, pieces that lie evenly in it are read."""


class _Memory:
    """Device memory of this process. Raises CudaError, NoCuda."""

    def __init__(self, driver: Driver, mib: int) -> None:
        self._driver, self._mib = driver, mib
        device, context = ctypes.c_int(), ctypes.c_void_p()
        driver.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        driver.call("cuCtxSetCurrent", context)
        self._at = ctypes.c_uint64()
        driver.call("cuMemAlloc_v2", ctypes.byref(self._at), ctypes.c_size_t(mib * MIB))

    def fill(self, seed: int) -> None:
        """Give each MiB a value of its own."""
        for number in range(self._mib):
            value = ctypes.c_uint((number * 2_654_435_761 + seed) & 0xFFFFFFFF)
            place = ctypes.c_uint64(self._at.value + number * MIB)
            self._driver.call("cuMemsetD32_v2", place, value, ctypes.c_size_t(MIB // 4))
        self._driver.call("cuCtxSynchronize")

    def digest(self) -> str:
        """Return a checksum of what is in it."""
        piece = ctypes.create_string_buffer(MIB)
        found = 0
        for number in range(0, self._mib, max(self._mib // MOST_READ_MIB, 1)):
            place = ctypes.c_uint64(self._at.value + number * MIB)
            self._driver.call("cuMemcpyDtoH_v2", piece, place, ctypes.c_size_t(MIB))
            found = zlib.crc32(piece, found)
        return f"{found:08x}"


def main(mib: int) -> int:
    """Hold `mib` until the input ends; return the exit code."""
    try:
        memory = _Memory(Driver(), mib)
        memory.fill(0)
        print("ready", memory.digest(), flush=True)
        for count, line in enumerate(sys.stdin, 1):
            if line.strip() == "change":
                memory.fill(count)
            print("holds", memory.digest(), flush=True)
    except (CudaError, NoCuda) as error:
        print("failed", error, flush=True)
        return 1
    return 0
