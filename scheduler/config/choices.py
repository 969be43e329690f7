"""Lists the values of the settings that are one of a few words. Imported by the probe helper, so on its own."""

from enum import StrEnum


class Framework(StrEnum):
    """The values of `framework`."""

    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"
    AUTO = "auto"


class ProbeKind(StrEnum):
    """The values of `gpu.probe`. AUTO: NVML, nvidia-smi, AMD, else none."""

    AUTO = "auto"
    NVIDIA_SMI = "nvidia-smi"
    ROCM = "rocm"
    NONE = "none"


class SignalTo(StrEnum):
    """The values of `signalTo`: the processes that train, the command's first process, or its process group."""

    TRAINER = "trainer"
    LEADER = "leader"
    GROUP = "group"


class SuspendRule(StrEnum):
    """The values of `suspend`: whether the end of a timebox may suspend a run in place."""

    AUTO = "auto"
    """Where nothing speaks against it."""
    ALWAYS = "always"
    """Also where it is likely to notice."""
    NEVER = "never"


class AtTimebox(StrEnum):
    """What the end of a timebox means."""

    AUTO = "auto"
    """It stops a run only where that loses no work."""
    END = "end"


class Secrets(StrEnum):
    """The values of `secrets`: what becomes of stored credentials once a run has ended."""

    KEEP = "keep"
    SCRUB = "scrub"
