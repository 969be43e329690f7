"""Reads NVIDIA GPUs through NVML, by way of `pynvml` (the package nvidia-ml-py).

Only for the helper process: a call into a sick driver can hang, and nothing in Python can interrupt it.

Drivers and cards are known to differ in this:
- A driver older than the module lacks functions: NVMLError_FunctionNotFound, or NVMLLibraryMismatchError,
  which is *not* an NVMLError. Then an older function is called, or the answer is None.
- One lost GPU raises for itself; the others answer. It is reported with its error, not left out.
- "Not supported" is None, never 0. For memory it is an error of the GPU, except on the known integrated ones,
  which share the host's RAM and have no memory of their own to report.
- With MIG on, the GPU's own memory is not what a slice has: its instances are listed instead of it. They
  share its temperature, and have no utilisation.
- Memory in use includes the driver's reserve in the first version of the call and not in the second; free
  memory is the same in both, so only free and total are used.
"""

import contextlib
from importlib import import_module
from types import ModuleType
from typing import Final

from backprop.worker.probes.nvml_codes import MISMATCH, NO_LIBRARY, NOT_LOADED, error_code, nvml_errors
from backprop.worker.probes.nvml_device import NvmlDevice
from backprop.worker.probes.reading import Reading

SOURCE: Final = "nvml"

_ADVICE: Final = {
    MISMATCH: "the NVIDIA driver was upgraded underneath; reboot, or reload its kernel modules",
    NOT_LOADED: "the NVIDIA driver is not loaded",
    NO_LIBRARY: "libnvidia-ml.so.1 is not installed",
}


class NoNvmlError(Exception):
    """NVML answers nothing at all. `no_driver`: because none is installed or loaded."""

    def __init__(self, why: str, *, no_driver: bool) -> None:
        super().__init__(why)
        self.no_driver = no_driver


class Nvml:
    """One NVML session, opened at the first reading and kept; opened anew after an error."""

    def __init__(self) -> None:
        self._module: ModuleType | None = None
        self._open = False
        self._version: str | None = None

    def read(self) -> Reading:
        """Read all GPUs. Raises NoNvmlError."""
        nvml = self._load()
        try:
            if not self._open:
                nvml.nvmlInit()
                self._open = True
            devices = [NvmlDevice(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
            gpus = tuple(gpu for device in devices for gpu in device.read())
        except nvml_errors(nvml) as error:
            self.close()
            code = error_code(error)
            why = _ADVICE.get(code, f"NVML fails: {error}")
            raise NoNvmlError(why, no_driver=code in (NOT_LOADED, NO_LIBRARY)) from error
        if any(device.gone for device in devices):
            self.close()  # a lost GPU comes back only to a session opened after its reset
        return Reading(gpus, SOURCE, driver=self._driver(nvml))

    def _driver(self, nvml: ModuleType) -> str | None:
        """Return the driver's version, which cannot change under an open session."""
        if self._version is None:
            with contextlib.suppress(AttributeError, UnicodeDecodeError, *nvml_errors(nvml)):
                told: str | bytes = nvml.nvmlSystemGetDriverVersion()
                self._version = told.decode() if isinstance(told, bytes) else told
        return self._version

    def close(self) -> None:
        """End the session, if there is one."""
        if self._module is not None and self._open:
            self._open, self._version = False, None
            try:
                self._module.nvmlShutdown()
            except nvml_errors(self._module):
                return

    def _load(self) -> ModuleType:
        if self._module is None:
            try:
                module = import_module("pynvml")
            except ImportError as error:
                raise NoNvmlError(f"nvidia-ml-py is missing: {error}", no_driver=True) from error
            if not hasattr(module, "_nvmlGetFunctionPointer"):  # another package's module of the same name
                raise NoNvmlError("the module pynvml is not nvidia-ml-py's", no_driver=True)
            self._module = module
        return self._module
