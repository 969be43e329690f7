"""Where Backprop keeps things: what is refused, in one line and with nothing half-done."""

import os
from pathlib import Path

import pytest

from backprop.scheduler.errors import HomeRefused
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home, check, ensure, file_system_type, locate, refuse_remote

NFS = 0x6969


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refusal(home: Home, folder: Path) -> str:
    """Why `ensure` refuses, after making sure that it left everything as it was."""
    before = listing(folder)
    with pytest.raises(HomeRefused) as caught:
        ensure(home)
    assert listing(folder) == before
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_a_new_home_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = ensure(Home(tmp_path / "home"))
    finally:
        os.umask(before)
    for folder in (home.root, home.locks, home.runs):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert listing(home.root) == ["locks", "runs"]
    ensure(home)


def test_one_that_others_may_read_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir()
    root.chmod(0o755)
    ensure(Home(root))
    assert root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702, 0o1777])
def test_one_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Not closed and used: somebody may have put something in it already."""
    root = tmp_path / "home"
    root.mkdir()
    root.chmod(mode)
    advice = "set BACKPROP_HOME to a private directory" if mode & 0o1000 else f"chmod 700 {root}"
    assert advice in refusal(Home(root), tmp_path), "whoever closes /tmp breaks the machine"
    assert root.stat().st_mode & 0o7777 == mode


def test_a_link_is_refused_and_names_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "home").symlink_to("disk")
    assert f"set BACKPROP_HOME to that path itself: {tmp_path / 'disk'}" in refusal(
        Home(tmp_path / "home"), tmp_path
    )
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "symbolic link" in refusal(Home(tmp_path / "dangling"), tmp_path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")
    assert "is not a directory" in refusal(Home(tmp_path / "home"), tmp_path)
    assert (tmp_path / "home").read_text() == "mine"
    assert "Not a directory" in refusal(Home(tmp_path / "home" / "below"), tmp_path)


def test_one_whose_parent_is_missing_is_refused(tmp_path: Path) -> None:
    """Made deeper than one level, a typing mistake would be a second, empty queue."""
    said = refusal(Home(tmp_path / "no" / "home"), tmp_path)
    assert str(tmp_path / "no") in said
    assert "does not exist" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir(mode=0o700)
    os.chown(root, 12345, 12345)
    assert "belongs to uid 12345" in refusal(Home(root), tmp_path)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BACKPROP_HOME", raising=False)
    assert locate().root == tmp_path / ".backprop"
    monkeypatch.setenv("BACKPROP_HOME", "")
    assert locate().root == tmp_path / ".backprop"
    monkeypatch.setenv("BACKPROP_HOME", "/data/queue")
    assert locate().root == Path("/data/queue")
    for relative in ("queue", "./queue", "~/queue"):
        monkeypatch.setenv("BACKPROP_HOME", relative)
        with pytest.raises(HomeRefused, match="not an absolute path"):
            locate()
    assert not check(Home(tmp_path / ".backprop")), "looking creates nothing"
    assert listing(tmp_path) == []


def test_a_network_file_system_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKPROP_ALLOW_REMOTE_HOME", raising=False)
    monkeypatch.setattr(layout, "file_system_type", lambda _: NFS)
    assert "is on NFS" in refusal(Home(tmp_path / "home"), tmp_path)
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    assert "is on NFS" in refusal(Home(there), tmp_path), "made by the user, nothing in it yet"
    with pytest.raises(HomeRefused, match="BACKPROP_HOME"):
        refuse_remote(there)
    monkeypatch.setenv("BACKPROP_ALLOW_REMOTE_HOME", "1")
    ensure(Home(tmp_path / "home"))


def test_the_kind_of_file_system_is_the_kernels_word() -> None:
    assert file_system_type(Path("/proc")) == 0x9FA0
    assert file_system_type(Path("/no/such/place")) == 0, "cannot say"
