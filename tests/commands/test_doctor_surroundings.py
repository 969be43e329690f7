"""What the doctor says in WSL2 and in containers, which are told from files under a root of the test's own."""

import time
from pathlib import Path

import pytest

from backprop.cli.doctor.finding import Finding, Level
from backprop.cli.doctor.surroundings import check_surroundings
from backprop.scheduler.home import layout

WSL2 = "5.15.167.4-microsoft-standard-WSL2\n"


def machine(root: Path, files: dict[str, str]) -> dict[str, Finding]:
    """Make the files below `root`, and return what is found, by name."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {one.name: one for one in check_surroundings(root, root)}


def test_an_ordinary_machine(tmp_path: Path) -> None:
    files = {"proc/sys/kernel/osrelease": "6.8.0-45-generic\n", "proc/self/cgroup": "0::/user.slice\n"}
    assert [*machine(tmp_path, files).values()] == [
        Finding("surroundings", Level.OK, "neither WSL nor a container")
    ]


def test_wsl2_without_systemd_after_windows_has_slept(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/sys/kernel/osrelease": WSL2,
            "sys/class/rtc/rtc0/since_epoch": f"{time.time() + 3600:.0f}\n",
        },
    )
    assert found["WSL"].level is Level.NOTE
    assert "systemd=true" in (found["WSL"].advice or "")
    assert "s behind Windows" in found["WSL clock"].told
    assert 3590 < int(found["WSL clock"].told.split()[0]) <= 3600


def test_wsl2_as_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    found = machine(
        tmp_path,
        {"proc/sys/kernel/osrelease": WSL2, "sys/class/rtc/rtc0/since_epoch": f"{time.time():.0f}\n"},
    )
    assert [*found.values()] == [Finding("WSL", Level.OK, "WSL2 with systemd")]


def test_a_project_on_a_windows_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """statfs(2) is the outermost edge: no 9p can be mounted here."""
    monkeypatch.setattr(layout, "file_system_type", lambda _path: 0x01021997)
    found = machine(tmp_path, {"proc/sys/kernel/osrelease": WSL2})
    assert "is on a Windows drive" in found["WSL drive"].told


def test_wsl1_is_bad(tmp_path: Path) -> None:
    found = machine(tmp_path, {"proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft\n"})
    assert (found["WSL"].level, found["WSL"].advice) == (Level.BAD, "wsl --set-version DISTRO 2")


@pytest.mark.parametrize(
    ("marker", "text", "kind"),
    [
        (".dockerenv", "", "Docker"),
        ("run/.containerenv", "", "Podman"),
        ("run/systemd/container", "systemd-nspawn\n", "systemd-nspawn"),
        ("proc/self/cgroup", "0::/kubepods/burstable/pod1\n", "kubepods"),
    ],
)
def test_a_container_without_an_init(tmp_path: Path, marker: str, text: str, kind: str) -> None:
    found = machine(tmp_path, {marker: text, "proc/1/comm": "python\n"})
    assert found["container"].level is Level.NOTE
    assert found["container"].told.startswith(f"{kind}, and its first process (python) collects no dead ones")
    assert "--init" in (found["container"].advice or "")
    assert machine(tmp_path, {"proc/1/comm": "tini\n"})["container"].level is Level.OK


def test_the_limits_of_a_container(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            ".dockerenv": "",
            "proc/1/comm": "docker-init\n",
            "sys/fs/cgroup/memory.max": f"{8 << 30}\n",
            "sys/fs/cgroup/cpu.max": "250000 100000\n",
        },
    )
    assert found["container RAM"].told == "limited to 8.0 GiB, which minFreeRamGB keeps to"
    assert found["container CPU"].told.startswith("limited to 2.5 CPUs")


def test_limits_that_only_cgroup_v1_has(tmp_path: Path) -> None:
    files = {
        ".dockerenv": "",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 << 30}\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    found = machine(tmp_path, files)
    assert found["container RAM"].level is Level.NOTE
    assert "4.0 GiB by cgroup v1" in found["container RAM"].told
    assert found["container CPU"].told.startswith("limited to 1.0 CPUs")
    unlimited = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    }
    assert set(machine(tmp_path, unlimited)) & {"container RAM", "container CPU"} == set()
