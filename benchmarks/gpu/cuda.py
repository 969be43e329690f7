"""A process that uses one GPU through nothing but the driver's library: `python cuda.py MIB`.

Takes MIB on the first device it sees, says so, then fills it over and over, a line for each time, until it is ended.
Standard library only. Exit code 3: the driver refused, and why is on stderr.

    device 1 of 1, uuid 0123…        how many devices are visible, and which one is used
    allocated
    beat 1
"""

import ctypes
import itertools
import sys
import time

MIB = 1024 * 1024
BEAT_S = 0.1
REFUSED = 3


class Refusal(Exception):
    """A call of the driver's that did not return CUDA_SUCCESS."""


class Cuda:
    """The handful of calls needed. Raises OSError where there is no driver, Refusal where it says no."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", ctypes.c_uint(0))

    def open(self) -> tuple[int, str]:
        """Make a context on the first device; (devices visible, the UUID of the first as 32 hex digits)."""
        count, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        uuid = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDeviceGetUuid", ctypes.byref(uuid), device)
        self._call("cuCtxCreate_v2", ctypes.byref(context), ctypes.c_uint(0), device)
        return count.value, bytes(uuid).hex()

    def take(self, size_bytes: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
        return pointer

    def fill(self, pointer: ctypes.c_uint64, value: int, size_bytes: int) -> None:
        self._call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(value), ctypes.c_size_t(size_bytes))
        self._call("cuCtxSynchronize")

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise Refusal(f"{name} returned CUresult {code}")


def main(size_mib: int) -> int:
    try:
        cuda = Cuda()
        count, uuid = cuda.open()
        print(f"device 1 of {count}, uuid {uuid}", flush=True)
        pointer = cuda.take(size_mib * MIB)
        print("allocated", flush=True)
        for beat in itertools.count(1):
            cuda.fill(pointer, beat % 256, size_mib * MIB)
            print(f"beat {beat}", flush=True)
            time.sleep(BEAT_S)
    except (OSError, Refusal) as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
