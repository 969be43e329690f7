"""What `backprop doctor` says of the home and the disk below it."""

import json
import subprocess
from pathlib import Path

import pytest

from backprop.cli.doctor.finding import Level
from backprop.cli.doctor.home import check_disk, check_file_system, check_home, check_locks
from backprop.cli.exit_codes import DOCTOR_FOUND
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from tests.support.doctor_cases import calm, doctor, seen
from tests.support.harness import Bench


def test_a_machine_without_a_board_is_named(bench: Bench) -> None:
    _, found = doctor(calm(bench))
    assert found["board"]["level"] == "ok"
    assert str(bench.home.parent / "board") in found["board"]["told"]
    code, found = doctor(bench, env={"BACKPROP_BOARD": str(bench.home.parent / "none")})
    assert (code, found["board"]["level"]) == (0, "note")
    assert "none: No such file or directory" in found["board"]["told"]
    assert "BACKPROP_BOARD" in found["board"]["advice"]


def test_homes_that_are_refused(bench: Bench, tmp_path: Path) -> None:
    calm(bench)
    (tmp_path / "link").symlink_to("elsewhere")
    code, found = doctor(bench, env={"BACKPROP_HOME": str(tmp_path / "link")})
    assert (code, found["home"]["level"]) == (DOCTOR_FOUND, "bad")
    assert "symbolic link" in found["home"]["told"]
    _, found = doctor(bench, env={"BACKPROP_HOME": "relative"})
    assert "not an absolute path" in found["home"]["told"]
    _, found = doctor(bench, env={"BACKPROP_HOME": str(tmp_path / "no" / "home")})
    assert found["file system"]["told"] == "unknown"
    bench.home.mkdir()
    bench.home.chmod(0o777)
    told = bench.backprop("doctor", "--repair")
    assert "not repaired" in told.stdout
    assert "chmod 700" in told.stdout
    assert bench.home.stat().st_mode & 0o777 == 0o777, "what others put there is for its owner to judge"


@pytest.mark.parametrize("name", ["locks", "runs", "backups", "backprop.db"])
def test_a_planted_link_inside_is_told(home: Home, tmp_path: Path, name: str) -> None:
    place = home.root / name
    if place.exists():
        place.rmdir()
    place.symlink_to(tmp_path)
    told = check_home(home)
    assert told.level is Level.BAD
    assert f"{place} is a symbolic link" in told.told


@pytest.mark.parametrize(
    ("kind", "level", "word"),
    [
        (0x6969, Level.BAD, "NFS"),
        (0x65735546, Level.BAD, "FUSE"),
        (0xEF53, Level.OK, "ext4"),
        (0x9123683E, Level.OK, "Btrfs"),
        (0x01021994, Level.NOTE, "tmpfs"),
        (0x794C7630, Level.NOTE, "overlayfs"),
        (0x1234, Level.OK, "0x1234"),
        (0, Level.OK, "unknown"),
    ],
)
def test_the_file_system_by_name(
    home: Home, monkeypatch: pytest.MonkeyPatch, kind: int, level: Level, word: str
) -> None:
    monkeypatch.delenv("BACKPROP_ALLOW_REMOTE_HOME", raising=False)
    monkeypatch.setattr(layout, "file_system_type", lambda _: kind)
    told = check_file_system(home)
    assert (told.level, word in told.told) == (level, True), told


def test_locks_are_tried_and_leave_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(home.root)
    assert check_locks(home).level is Level.OK
    assert seen(home.root) == before
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    assert "no effect" in check_locks(home).told


def test_too_little_room_is_told(home: Home) -> None:
    assert check_disk(home, 0).level is Level.OK
    told = check_disk(home, 1 << 40)
    assert (told.level, "no run starts" in told.told) == (Level.BAD, True)


FULL = """
set -e
mount -t tmpfs -o size=1m,mode=700 none "$BACKPROP_HOME"
backprop run -q train.py >/dev/null
dd if=/dev/zero of="$BACKPROP_HOME/filler" bs=4k 2>/dev/null || true
backprop doctor --json
"""


def test_on_a_full_disk(bench: Bench) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no user namespaces here")
    calm(bench).script("train.py", "print(1)")
    bench.script("backprop.config.json", '{"gpu": {"probe": "none"}, "minFreeDiskGB": 0.001}')
    bench.home.mkdir(mode=0o700)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", FULL], env=bench.environment, cwd=bench.project,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == DOCTOR_FOUND, done
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["disk"]["level"] == "bad"
    assert found["database"]["level"] == "ok"
