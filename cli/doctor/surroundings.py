"""Checks what WSL2 and containers do differently: systemd, the clock, Windows drives, init, limits, shared memory."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backprop.cli.doctor.finding import Finding, bad, note, ok
from backprop.scheduler.home import layout
from backprop.worker.probes.host import MIB

PLAN_9: Final = 0x01021997
"""`f_type` of the Windows drives under /mnt in WSL2."""
CLOCK_SLACK_S: Final = 5.0
INITS: Final = frozenset(
    (
        *("systemd", "init", "tini", "dumb-init", "docker-init", "catatonit"),
        *("runit", "runsvdir", "s6-svscan", "openrc-init", "sh", "bash"),
    )
)
"""What collects dead processes as pid 1; shells do."""
IN_CGROUP: Final = re.compile(r"docker|libpod|kubepods|containerd|lxc")
NO_LIMIT: Final = 1 << 60
"""cgroup v1 has a number near 2^63 where there is no limit."""
LITTLE_SHM_MIB: Final = 1024


def check_surroundings(root: Path, cwd: Path | None) -> list[Finding]:
    """Return what is special here; one finding where nothing is. `root`: `/`. `cwd`: where runs are queued."""
    release = _text(root / "proc/sys/kernel/osrelease").lower()
    found: list[Finding] = []
    if "microsoft" in release:
        found += _wsl(root, release, cwd)
    if (kind := container_kind(root)) is not None:
        found += _container(root, kind)
    return found or [ok("surroundings", "neither WSL nor a container")]


def _wsl(root: Path, release: str, cwd: Path | None) -> Iterator[Finding]:
    if "wsl2" not in release and release.startswith("4.4."):
        yield bad("WSL", "WSL 1 has no Linux kernel: locks and signals differ", "wsl --set-version DISTRO 2")
        return
    if (root / "run/systemd/system").is_dir():
        yield ok("WSL", "WSL2 with systemd")
    else:
        told = "WSL2 without systemd: `backprop service` cannot be used; start workers in tmux"
        yield note("WSL", told, "put [boot] systemd=true into /etc/wsl.conf, then in Windows: wsl --shutdown")
    hardware = _text(root / "sys/class/rtc/rtc0/since_epoch").strip()
    if hardware.isdecimal() and (off_s := int(hardware) - time.time()) > CLOCK_SLACK_S:
        yield note("WSL clock", f"{off_s:.0f} s behind Windows, as after its sleep", "sudo hwclock -s")
    if cwd is not None and layout.file_system_type(cwd) == PLAN_9:
        told = f"{cwd} is on a Windows drive: slow, and no one is told of changes there"
        yield note("WSL drive", told, "keep code, data and checkpoints in the Linux file system, such as ~")


def container_kind(root: Path) -> str | None:
    """Return the kind of container that this process is in, None outside of one."""
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    if name := _text(root / "run/systemd/container").strip():
        return name
    known = IN_CGROUP.search(_text(root / "proc/self/cgroup"))
    return known[0] if known else None


def _container(root: Path, kind: str) -> Iterator[Finding]:
    first = _text(root / "proc/1/comm").strip()
    if first in INITS:
        yield ok("container", f"{kind}; {first} collects dead processes; all ends with it")
    else:
        told = f"{kind}, and its first process ({first or 'unknown'}) collects no dead ones; all ends with it"
        yield note("container", told, "docker run --init, or podman run --init")
    yield from _limits(root)
    if (shm_mib := _size_mib(root / "dev/shm")) is not None and shm_mib < LITTLE_SHM_MIB:
        told = f"{shm_mib} MiB of shared memory: PyTorch's DataLoader workers may die of a bus error"
        yield note("shared memory", told, "docker run --shm-size=8g, or --ipc=host")


def _limits(root: Path) -> Iterator[Finding]:
    """Say which limits there are. The governor knows RAM's in cgroup v2, and none on CPUs."""
    unified = root / "sys/fs/cgroup"
    ram = _number(unified / "memory.max")
    if (
        ram is None
        and (old := _number(unified / "memory/memory.limit_in_bytes")) is not None
        and old < NO_LIMIT
    ):
        told = f"RAM limited to {old / MIB / 1024:.1f} GiB by cgroup v1, which minFreeRamGB does not see"
        yield note("container RAM", told, "start fewer at once: backprop parallel 1")
    elif ram is not None:
        yield ok("container RAM", f"limited to {ram / MIB / 1024:.1f} GiB, which minFreeRamGB keeps to")
    quota, _, period = _text(unified / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _text(unified / "cpu/cpu.cfs_quota_us").strip()
        period = _text(unified / "cpu/cpu.cfs_period_us").strip()
    if quota.isdecimal() and period.isdecimal() and int(period):
        told = f"limited to {int(quota) / int(period):.1f} CPUs; maxCpuLoad is per core of the whole machine"
        yield note("container CPU", told, "lower it to match, such as --max-cpu-load 1")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _size_mib(path: Path) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_blocks * status.f_frsize // MIB


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
