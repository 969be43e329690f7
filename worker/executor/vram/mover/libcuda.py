"""Calls the CUDA driver's library: the five calls that move a process's VRAM, and what names an error.

They need `cuInit` in the calling process and no context of its own. They came with driver 570. Each may wait for the
driver for ever. Standard library only, imports nothing of Backprop.
"""

import ctypes

RUNNING, LOCKED, CHECKPOINTED, FAILED = 0, 1, 2, 3
NAME = "libcuda.so.1"


class NoCuda(Exception):
    """The driver's library is not there, is too old, or does not begin. The text says why."""


class CudaError(Exception):
    """A call that the driver refused. `call`: its name, in short. `code`: a CUresult."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name} ({code})")
        self.call, self.code = call, code


class _LockArguments(ctypes.Structure):
    _fields_ = (("timeoutMs", ctypes.c_uint), ("first", ctypes.c_uint), ("others", ctypes.c_uint64 * 7))


class Driver:
    """The library, opened and begun. Raises NoCuda."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(NAME)
        except OSError as error:
            raise NoCuda(f"{NAME} cannot be loaded: {error}") from error
        try:
            self.call("cuInit", ctypes.c_uint(0))
        except CudaError as error:
            raise NoCuda(str(error)) from error

    def call(self, name: str, *arguments: object) -> None:
        """Call one function. Raises CudaError, NoCuda for one that this driver does not have."""
        try:
            code: int = getattr(self._library, name)(*arguments)
        except AttributeError as error:
            raise NoCuda(f"this driver has no {name}") from error
        if code != 0:
            short = name.removeprefix("cuCheckpointProcess").removeprefix("cu").lower()
            raise CudaError(short, code, self._name(code))

    def state(self, pid: int) -> int:
        """Return where a process stands. Raises CudaError, NoCuda."""
        state = ctypes.c_int(-1)
        self.call("cuCheckpointProcessGetState", ctypes.c_int(pid), ctypes.byref(state))
        return state.value

    def lock(self, pid: int, patience_ms: int) -> None:
        """Hold back a process's calls, once what is under way has ended. Raises CudaError, NoCuda."""
        arguments = _LockArguments(timeoutMs=patience_ms)
        self.call("cuCheckpointProcessLock", ctypes.c_int(pid), ctypes.byref(arguments))

    def checkpoint(self, pid: int) -> None:
        """Move the VRAM of a locked process to its RAM. Raises CudaError, NoCuda."""
        self.call("cuCheckpointProcessCheckpoint", ctypes.c_int(pid), None)

    def restore(self, pid: int) -> None:
        """Move it back to the GPU that it came from. Raises CudaError, NoCuda."""
        self.call("cuCheckpointProcessRestore", ctypes.c_int(pid), None)

    def unlock(self, pid: int) -> None:
        """Let a process's calls go on. Raises CudaError, NoCuda."""
        self.call("cuCheckpointProcessUnlock", ctypes.c_int(pid), None)

    def _name(self, code: int) -> str:
        text = ctypes.c_char_p()
        try:
            if self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text)) != 0 or not text.value:
                return "error"
        except AttributeError:
            return "error"
        return text.value.decode(errors="replace")
