"""Finds out whether there is a GPU at all, whatever its driver says.

That tells a machine without GPUs, where no rule about them applies, from one whose driver is broken, where no run may
start. Reads the kernel's own files; `root` lets a test give a folder instead of the machine.
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

_NVIDIA: Final = "0x10de"
_DISPLAY_CLASSES: Final = ("0x0300", "0x0302", "0x0380")  # VGA, 3D controller, other display


def nvidia_seems_present(root: Path = ROOT) -> bool:
    """Return whether an NVIDIA GPU is on the PCI bus, has a device node (containers see no bus), or is in the driver's
    own list."""
    return (
        any(root.glob("proc/driver/nvidia/gpus/*"))
        or any(root.glob("dev/nvidia[0-9]*"))
        or any(_is_gpu(device, _NVIDIA) for device in root.glob("sys/bus/pci/devices/*"))
    )


def _is_gpu(device: Path, vendor: str) -> bool:
    return read_text(device / "vendor") == vendor and read_text(device / "class").startswith(_DISPLAY_CLASSES)


def read_text(path: Path) -> str:
    """Return a short kernel file, stripped; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
