"""Fakes a graphics driver and its tools by files: no test machine has them, and no test may break them.

    library = build_driver(folder)                  # libnvidia-ml.so.1 and libcuda.so.1, compiled from nvml.c, cuda.c
    driver = FakeDriver(folder / "driver", library)
    driver.show(FakeGpu("GPU-aaaa", total=24_576))  # again at any time: answers change at the next call
    subprocess.Popen(..., env=driver.environment())

    fake_tool(folder, "nvidia-smi", "echo hello")   # an executable shell script

ALLOCATE is a script that holds memory on the fake GPU that CUDA_VISIBLE_DEVICES names (`--mib 6000`) for as
long as it lives, and fails like CUDA where there is not enough.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALLOCATE = HERE / "allocate.py"


@dataclass(frozen=True)
class FakeMig:
    """One MIG instance; amounts in MiB."""

    uuid: str
    total: int
    used: int = 0
    name: str = "Fake MIG 1g.10gb"


@dataclass(frozen=True)
class FakeGpu:
    """One GPU; amounts in MiB, temperatures in °C. `slowdown`, `margin` 0: not supported.

    `reasons`: NVML's bits. `power`: milliwatts, 0 where the card cannot say. `handle_rc`, `uuid_rc`, `mem_rc`,
    `temp_rc`: NVML return codes of those calls: 3 not supported, 15 lost. `hang_ms`: each call about this GPU takes so
    long."""

    uuid: str
    total: int = 24_576
    used: int = 0
    reserved: int = 0
    temp: int = 40
    slowdown: int = 90
    margin: int = 0
    util: int = 0
    power: int = 0
    reasons: int = 0
    handle_rc: int = 0
    uuid_rc: int = 0
    mem_rc: int = 0
    temp_rc: int = 0
    hang_ms: int = 0
    name: str = "Fake GPU"
    mig: tuple[FakeMig, ...] | None = None


class FakeDriver:
    """The state behind one fake driver. `library`: the folder that `build_driver` returned."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.library = library
        (folder / "alloc").mkdir(parents=True)
        (folder / "cuda").mkdir()

    def show(self, *gpus: FakeGpu, init_rc: int = 0, hang_ms: int = 0, version: str = "580.159.04") -> None:
        """Set what the driver answers from now on. `init_rc`: of the whole library: 9 not loaded, 18 mismatch."""
        lines = [f"driver init={init_rc} hang_ms={hang_ms} version={version}"]
        for gpu in gpus:
            lines.append("gpu " + _pairs(gpu) + f" mig={int(gpu.mig is not None)}")
            lines.extend("mig " + _pairs(instance) for instance in gpu.mig or ())
        draft = self.folder / f"state.{os.getpid()}"
        draft.write_text("\n".join(lines) + "\n")
        draft.replace(self.folder / "state")

    def occupy(self, uuid: str, mib: int, pid: int | None = None) -> Path:
        """Let a process (by default this one) hold memory until it ends or the returned file is removed.
        `mib` -1: the driver does not tell how much."""
        pid = os.getpid() if pid is None else pid
        path = self.folder / "alloc" / f"{pid}.{uuid}"
        draft = path.with_name(f".{path.name}")
        draft.write_text(f"{uuid} {pid} {mib}\n")
        return draft.replace(path)

    def cuda(self, **values: int) -> None:
        """Set how it answers those who move VRAM, see cuda.c; what is not named is as on a good driver. `hang` lasts
        until `hangs_no_more`."""
        (self.folder / "cuda" / "hang").touch()
        draft = self.folder / "cuda" / f".behaviour.{os.getpid()}"
        draft.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        draft.replace(self.folder / "cuda" / "behaviour")

    def hangs_no_more(self) -> None:
        """Let every call return that hangs."""
        (self.folder / "cuda" / "hang").unlink(missing_ok=True)

    def moved_mib(self, pid: int) -> int | None:
        """Return how much VRAM of a process lies in RAM; None where it is on the GPU."""
        try:
            state, _, mib = (self.folder / "cuda" / str(pid)).read_text().split()
        except (OSError, ValueError):
            return None
        return int(mib) if state == "2" else None

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment for a process that shall see this driver: ours, without a choice of GPUs."""
        hidden = {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}
        base = {name: value for name, value in os.environ.items() if name not in hidden}
        return base | {"LD_LIBRARY_PATH": str(self.library), "FAKE_NVML_DIR": str(self.folder)} | more


def build_driver(folder: Path, *, old: bool = False) -> Path:
    """Compile the fake libraries into `folder`, for LD_LIBRARY_PATH. Skips the test where no C compiler is."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here to build the fake NVIDIA driver with")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation"]
    flags += ["-DOLD_DRIVER"] if old else []
    for library, source in (("libnvidia-ml.so.1", "nvml.c"), ("libcuda.so.1", "cuda.c")):
        subprocess.run([compiler, *flags, "-o", str(folder / library), str(HERE / source)], check=True)
    return folder


def fake_tool(folder: Path, name: str, script: str) -> Path:
    """Write an executable shell script into `folder`; one that exists is replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}"
    draft.write_text(f"#!/bin/sh\n{script}\n")
    draft.chmod(0o755)
    return draft.replace(folder / name)


def fake_files(root: Path, files: Mapping[str, str]) -> Path:
    """Make a folder that stands for the root of a machine: path → content."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def _pairs(one: FakeGpu | FakeMig) -> str:
    values = {field.name: getattr(one, field.name) for field in fields(one) if field.name != "mig"}
    return " ".join(f"{name}={str(value).replace(' ', '_')}" for name, value in values.items())
