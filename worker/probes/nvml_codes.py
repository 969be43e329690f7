"""Names NVML's return codes, and the exceptions that pynvml makes of them."""

from types import ModuleType
from typing import Final

UNINITIALIZED, NOT_LOADED, NO_LIBRARY, LOST, RESET, MISMATCH = 1, 9, 12, 15, 16, 18
"""As in nvml.h."""

DRIVER_GONE: Final = frozenset({UNINITIALIZED, NOT_LOADED, MISMATCH})
GPU_GONE: Final = frozenset({LOST, RESET})


def nvml_errors(nvml: ModuleType) -> tuple[type[Exception], ...]:
    """Return the exceptions that its functions raise."""
    mismatch: type[Exception] | None = getattr(nvml, "NVMLLibraryMismatchError", None)
    return (nvml.NVMLError,) if mismatch is None else (nvml.NVMLError, mismatch)


def error_code(error: Exception) -> int:
    """Return NVML's return code; 0 for the mismatch error, which carries none."""
    return int(getattr(error, "value", 0))
