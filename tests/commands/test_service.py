"""`backprop service`: the unit that it writes, what it asks of systemd, and that a refusal leaves nothing behind.

systemd is faked at its outermost edge: a `systemctl` on PATH that notes what it was asked. The unit itself is read by
the real `systemd-analyze`, where there is one, and the worker in it is started as the unit says.
"""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import json_schema
from tests.support.harness import COMMAND, Bench, wait_until
from tests.support.refusals import refused

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {log}
case "$2" in
    {failing}) echo "Failed to connect to bus: No medium found" >&2; exit 1;;
    is-active) test -e {log}.on && echo active || {{ echo inactive; exit 3; }};;
    is-enabled) test -e {log}.on && echo enabled || {{ echo disabled; exit 1; }};;
    restart) touch {log}.on;;
    disable) rm -f {log}.on;;
esac
"""


class Systemd:
    """A systemd that notes what it is asked, and a user whose units lie in a folder of the test."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.log = folder / "asked"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.bench = bench
        self.config = folder / "config"
        self.unit = self.config / "systemd" / "user" / "backprop.service"
        bench.environment |= {
            "XDG_CONFIG_HOME": str(self.config),
            "PATH": f"{self.bin}:{bench.environment['PATH']}",
        }
        self.answer("nothing")

    def answer(self, failing: str) -> None:
        """From now on this verb fails."""
        path = self.bin / "systemctl"
        path.write_text(SYSTEMCTL.format(log=shlex.quote(str(self.log)), failing=failing))
        path.chmod(0o755)

    def asked(self) -> list[str]:
        """Return what it was asked since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return lines


@pytest.fixture
def systemd(bench: Bench, tmp_path: Path) -> Systemd:
    return Systemd(bench, tmp_path)


def values(unit: Path, key: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def test_install_status_remove(bench: Bench, systemd: Systemd) -> None:
    assert "not installed" in bench.backprop("service", "status").stdout
    assert systemd.asked() == []
    done = bench.backprop("service", "install", "--", "-p", "4")
    assert (done.returncode, done.stdout) == (0, f"started; the unit is {systemd.unit}\n"), done.stderr
    assert systemd.asked() == [
        "--user daemon-reload", "--user enable backprop.service", "--user restart backprop.service",
    ]  # fmt: skip
    assert values(systemd.unit, "ExecStart") == [f"{COMMAND} worker -p 4"]
    assert values(systemd.unit, "KillMode") == ["process"]
    assert values(systemd.unit, "LimitNOFILE") == ["65536:524288"]
    assert f"BACKPROP_HOME={bench.home}" in values(systemd.unit, "Environment")
    assert bench.backprop("service", "status").stdout == f"active, enabled: {systemd.unit}\n"
    answer = json.loads(bench.backprop("service", "status", "--json").stdout)
    json_schema.check(answer, "verb")
    told = answer["service"]
    assert (told["installed"], told["active"], told["enabled"]) == (True, "active", "enabled")
    systemd.asked()
    assert bench.backprop("service", "remove").stdout == f"stopped the worker; removed {systemd.unit}\n"
    assert systemd.asked() == ["--user disable --now backprop.service", "--user daemon-reload"]
    assert not systemd.unit.exists()
    assert "install one: backprop service install" in refused(bench, 11, "service", "remove")


def test_a_dry_run_writes_nothing_and_asks_nothing(bench: Bench, systemd: Systemd) -> None:
    done = bench.backprop("service", "install", "--dry-run")
    assert f"would write {systemd.unit}" in done.stdout
    assert f"ExecStart={COMMAND} worker\n" in done.stdout
    assert not systemd.config.exists()
    assert systemd.asked() == []


@pytest.mark.parametrize("failing", ["daemon-reload", "enable", "restart"])
def test_where_systemd_refuses_all_is_as_before(bench: Bench, systemd: Systemd, failing: str) -> None:
    systemd.answer(failing)
    said = refused(bench, 11, "service", "install")
    assert f"systemctl --user {failing}" in said
    assert "Failed to connect to bus" in said
    assert "tmux new -d -s backprop 'backprop worker'" in said
    assert not systemd.unit.exists()
    systemd.answer("nothing")
    assert bench.backprop("service", "install", "--", "-p", "3").returncode == 0
    before = systemd.unit.read_text()
    systemd.answer(failing)
    refused(bench, 11, "service", "install")
    assert systemd.unit.read_text() == before
    assert [path.name for path in systemd.unit.parent.iterdir()] == ["backprop.service"]


def test_what_is_refused_before_anything_is_written(bench: Bench, systemd: Systemd) -> None:
    assert "No such option: --foo; see: backprop worker" in refused(
        bench, 2, "service", "install", "--", "--foo"
    )
    assert "remove takes no options" in refused(bench, 2, "service", "remove", "--", "-p", "4")
    assert not systemd.config.exists()
    systemd.unit.parent.mkdir(parents=True)
    systemd.unit.write_text("[Service]\nExecStart=/mine\n")
    told = json.loads(bench.backprop("service", "install", "--json").stdout)
    json_schema.check(told, "verb")
    assert told["error"]["code"] == "service-refused"
    for action in ("install", "remove", "status"):
        assert "was not written by this command" in refused(bench, 11, "service", action)
    assert systemd.unit.read_text() == "[Service]\nExecStart=/mine\n"
    assert systemd.asked() == []
    (systemd.bin / "systemctl").unlink()
    systemd.unit.unlink()
    said = refused(bench, 11, "service", "install", env={"PATH": str(systemd.bin)})
    assert "does not run systemd" in said


def test_the_unit_of_a_home_with_odd_letters_starts_a_worker(bench: Bench, systemd: Systemd) -> None:
    """As systemd reads it: words are split outside of quotes, `%%` and `$$` stand for one letter."""
    bench.environment["BACKPROP_HOME"] = str(bench.home.parent / 'my "100%" $home')
    assert bench.backprop("service", "install", "--", "--drain", "--config", "a $b 5%.json").returncode == 0
    (line,) = values(systemd.unit, "ExecStart")
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]
    assert words == [str(COMMAND), "worker", "--drain", "--config", "a $b 5%.json"]
    (home,) = [one for one in values(systemd.unit, "Environment") if "BACKPROP_HOME" in one]
    assert shlex.split(home.replace("%%", "%")) == [f"BACKPROP_HOME={bench.environment['BACKPROP_HOME']}"]
    if (verify := shutil.which("systemd-analyze")) is not None:
        checked = subprocess.run(
            [verify, "verify", "--man=no", str(systemd.unit)], capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_the_worker_of_the_unit_runs_what_is_queued(bench: Bench, systemd: Systemd) -> None:
    bench.script("train.py", "print('trained')")
    run = bench.queue("train.py")
    assert bench.backprop("service", "install", "--", "--drain").returncode == 0
    (line,) = values(systemd.unit, "ExecStart")
    given = [shlex.split(one)[0].partition("=") for one in values(systemd.unit, "Environment")]
    worker = subprocess.Popen(
        shlex.split(line),
        env={"PATH": "/usr/bin:/bin", "HOME": str(bench.home.parent)}
        | {name: value for name, _, value in given},
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
    wait_until(lambda: worker.poll() is not None, timeout_s=60)
    assert worker.returncode == 0
    assert bench.state(run) == "completed"
