"""The table of mounts is read whatever a mount is called."""

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from backprop.scheduler.home.mounts import Mount, mounts, parse
from backprop.worker.environment import presence
from backprop.worker.user_files import UserFiles

TABLE = (
    rb"""22 28 0:21 / /proc rw,nosuid shared:12 master:1 - proc proc rw,hidepid=invisible
36 28 0:45 / /mnt/my\040data rw,relatime shared:1 - nfs4 nas:/data rw,vers=4.2
37 28 0:46 /sub /mnt/gr"""
    + "öße".encode()
    + rb""" rw - ext4 /dev/sda1 rw
38 28 0:47 / /mnt/\134\377 ro - fuse.sshfs me@there: rw
something else
"""
)


def test_names_options_and_kinds() -> None:
    assert parse(TABLE) == (
        Mount("/proc", "proc", ("rw", "nosuid", "rw", "hidepid=invisible")),
        Mount("/mnt/my data", "nfs4", ("rw", "relatime", "rw", "vers=4.2")),
        Mount("/mnt/größe", "ext4", ("rw", "rw")),
        Mount(os.fsdecode(b"/mnt/\\\xff"), "fuse.sshfs", ("ro", "rw")),
    )


def test_shares_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backprop.worker.user_files.mounts", lambda: parse(TABLE))
    files = UserFiles()
    assert files.share_of("/mnt/my data/run/ckpt.pt") == "/mnt/my data"
    assert files.share_of(os.fsdecode(b"/mnt/\\\xff/x")) == os.fsdecode(b"/mnt/\\\xff")
    assert files.share_of("/mnt/größe/x") is None


@pytest.fixture(params=["größe und mehr".encode(), b"no \xff text"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + request.param))
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_real_mount(mounted: Path) -> None:
    assert (str(mounted), "tmpfs") in [(mount.folder, mount.kind) for mount in mounts()]
    assert str(mounted) in (presence.mounted() or ())
