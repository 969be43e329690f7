"""Reads the GPUs of this machine by the first way that works.

For the helper process only: a reading can hang in the driver, see `backprop.worker.probes.client`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.config.choices import ProbeKind
from backprop.scheduler.governor.snapshot import NO_SOURCE
from backprop.worker.probes.amd import read_amd
from backprop.worker.probes.hardware import ROOT, nvidia_seems_present
from backprop.worker.probes.nvidia_smi import read_nvidia_smi
from backprop.worker.probes.nvml import NoNvmlError, Nvml
from backprop.worker.probes.reading import NO_GPU, Reading
from backprop.worker.probes.vendor_tool import ToolError, find_tool
from backprop.worker.probes.visible_devices import CUDA, ROCM, only_visible

MIN_AUTO_AMD_MIB: Final = 2048
"""A display controller inside a CPU owns less. Unless AMD is asked for, it is no GPU to train on."""


class Reader:
    """Reads as often as asked; NVML stays open between readings.

    `tool_deadline_s`: for the tools of one reading together; less than the client's own deadline. `root`, `folders`:
    used instead of the machine's root, and of the folders where tools usually are.
    """

    def __init__(
        self,
        kind: ProbeKind,
        *,
        tool_deadline_s: float = 8.0,
        root: Path = ROOT,
        folders: Sequence[Path] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._kind = kind
        self._tool_deadline_s = tool_deadline_s
        self._root = root
        self._folders = folders
        self._environment = os.environ if environment is None else environment
        self._nvml = Nvml()

    def read(self) -> Reading:
        """Read all GPUs that may be used. Expected errors become the reading's problem; it may hang."""
        match self._kind:
            case ProbeKind.NONE:
                return NO_GPU
            case ProbeKind.NVIDIA_SMI:
                return only_visible(self._nvidia_smi(), self._environment, CUDA)
            case ProbeKind.ROCM:
                return only_visible(self._amd(), self._environment, ROCM)
            case ProbeKind.AUTO:
                return self._auto()

    def _auto(self) -> Reading:
        nvidia = self._nvidia()
        if nvidia.gpus:
            return only_visible(nvidia, self._environment, CUDA)
        amd = self._amd(least_mib=MIN_AUTO_AMD_MIB)
        if amd.gpus:
            return only_visible(amd, self._environment, ROCM)
        return nvidia if nvidia.problem else amd

    def _nvidia(self) -> Reading:
        """Read by NVML, else nvidia-smi. A missing driver, or one that lists no GPU, matters only if a GPU is there."""
        try:
            reading = self._nvml.read()
        except NoNvmlError as error:
            why, only_absent = str(error), error.no_driver
        else:
            if reading.gpus:
                return reading
            why, only_absent = "the NVIDIA driver lists no GPU", True
        by_tool = self._nvidia_smi() if find_tool("nvidia-smi", self._folders) else NO_GPU
        if by_tool.gpus:
            return by_tool
        if only_absent and not nvidia_seems_present(self._root):
            return NO_GPU
        return Reading((), NO_SOURCE, f"{why}; {by_tool.problem}" if by_tool.problem else why)

    def _nvidia_smi(self) -> Reading:
        tool = find_tool("nvidia-smi", self._folders)
        if tool is None:
            return Reading((), NO_SOURCE, "nvidia-smi is not installed")
        try:
            return read_nvidia_smi(tool, self._tool_deadline_s)
        except ToolError as error:
            return Reading((), NO_SOURCE, str(error))

    def _amd(self, least_mib: int = 0) -> Reading:
        try:
            reading = read_amd(self._tool_deadline_s, root=self._root, folders=self._folders)
        except ToolError as error:
            return Reading((), NO_SOURCE, str(error))
        if reading is None:
            asked = self._kind is ProbeKind.ROCM
            return Reading((), NO_SOURCE, "no AMD GPU was found") if asked else NO_GPU
        large = tuple(gpu for gpu in reading.gpus if gpu.total_mib is None or gpu.total_mib >= least_mib)
        return msgspec.structs.replace(reading, gpus=large)
