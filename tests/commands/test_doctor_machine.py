"""What `backprop doctor` says of the machine: signals, logout, GPUs."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backprop.cli.doctor.finding import Level
from backprop.cli.doctor.login import Login, check_logout, check_terminal, read_login
from backprop.cli.doctor.machine import (
    SignalMasks,
    check_gpus,
    check_signals,
    lasting_signal_masks,
    signal_masks,
)
from backprop.cli.exit_codes import DOCTOR_FOUND
from backprop.worker.probes import vendor_tool
from backprop.worker.probes.reading import NO_GPU, Reading
from backprop.worker.probes.vendor_tool import ToolResult
from tests.support.doctor_cases import doctor
from tests.support.harness import COMMAND, Bench, wait_until

DEAF = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_signals_that_a_process_was_born_deaf_to() -> None:
    child = subprocess.Popen([sys.executable, "-c", DEAF, "/bin/sleep", "600"])
    try:
        wanted = SignalMasks(frozenset({signal.SIGHUP}), frozenset({signal.SIGTERM}))
        wait_until(lambda: signal_masks(child.pid) == wanted,
                   saw=lambda: signal_masks(child.pid))  # fmt: skip
    finally:
        child.kill()
        child.wait()
    assert signal_masks(child.pid) is None


HEARS = SignalMasks(frozenset(), frozenset())


def test_signals_blocked_for_a_moment_are_no_finding() -> None:
    """As while a worker starts a process: then every signal is blocked in it."""
    moment = SignalMasks(frozenset({signal.SIGHUP}), frozenset({signal.SIGINT, signal.SIGTERM}))
    lasting = SignalMasks(frozenset({signal.SIGHUP}), frozenset())
    looks = iter([moment, moment, lasting, *[moment] * 10])
    assert lasting_signal_masks(1, lambda _: next(looks)) == lasting
    looks = iter([moment, None])
    assert lasting_signal_masks(1, lambda _: next(looks)) is None
    looks = iter([moment] * 20)
    assert lasting_signal_masks(1, lambda _: next(looks)) == moment


@pytest.mark.parametrize(
    ("ours", "worker", "level", "word"),
    [
        (HEARS, HEARS, Level.OK, "signals are received"),
        (SignalMasks(frozenset({signal.SIGHUP}), frozenset()), None, Level.OK, "nohup"),
        (SignalMasks(frozenset({signal.SIGINT}), frozenset()), HEARS, Level.OK, "SIGINT ignored here"),
        (SignalMasks(frozenset(), frozenset({signal.SIGTERM})), HEARS, Level.NOTE, "SIGTERM blocked here"),
        (HEARS, SignalMasks(frozenset({signal.SIGHUP}), frozenset()), Level.OK, "are received"),
        (
            HEARS,
            SignalMasks(frozenset(), frozenset({signal.SIGINT})),
            Level.BAD,
            "worker w1 ignores SIGINT (inherited from its parent)",
        ),
        (None, HEARS, Level.NOTE, "cannot be read"),
    ],
)
def test_who_hears_what(
    ours: SignalMasks | None, worker: SignalMasks | None, level: Level, word: str
) -> None:
    told = check_signals(ours, {"w1": worker})
    assert (told.level, word in told.told) == (level, True), told


SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"
USER_UNIT = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n"


@pytest.mark.parametrize(
    ("login", "level", "word"),
    [
        (None, Level.OK, "kills nothing"),
        (Login("ann", lingers=False, kills=False, cgroup=SESSION), Level.OK, "survive a logout"),
        (Login("ann", lingers=True, kills=True, cgroup=SESSION), Level.NOTE, "kills workers and runs"),
        (Login("root", lingers=False, kills=True, spares=("root",), cgroup=SESSION), Level.OK, "survive"),
        (Login("ann", lingers=False, kills=True, kills_only=("bob",), cgroup=SESSION), Level.OK, "survive"),
        (
            Login("ann", lingers=False, kills=False, cgroup=USER_UNIT),
            Level.NOTE,
            "ends with your last logout",
        ),
        (Login("ann", lingers=True, kills=True, cgroup=USER_UNIT), Level.OK, "lingers"),
    ],
)
def test_what_a_logout_does(login: Login | None, level: Level, word: str) -> None:
    told = check_logout(login)
    assert (told.level, word in told.told) == (level, True), told
    assert (level is Level.NOTE) == ("loginctl enable-linger" in (told.advice or ""))


def test_loginctl_is_asked_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "loginctl"
    fake.write_text(
        '#!/bin/sh\n[ $# -eq 2 ] && echo "Name=$2" && echo Linger=yes && exit\n'
        "echo KillUserProcesses=yes; echo KillExcludeUsers=root ann\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(vendor_tool, "find_tool", lambda _: fake)
    login = read_login(SESSION)
    assert login is not None
    assert (login.lingers, login.kills, login.spares) == (True, True, ("root", "ann"))
    fake.write_text("#!/bin/sh\necho Failed to connect to bus >&2\nexit 1\n")
    assert read_login(SESSION) is None
    monkeypatch.setattr(
        vendor_tool, "run_tool", lambda _, deadline_s: ToolResult(None, f"{deadline_s:g}", "")
    )
    assert read_login(SESSION) is None, "it had to be killed"


@pytest.mark.parametrize(
    ("environment", "cgroup", "word"),
    [
        ({"TMUX": "x"}, SESSION, "tmux"),
        ({"STY": "x"}, SESSION, "screen"),
        ({}, "0::/system.slice/backprop.service\n", "unit backprop.service"),
        ({"TERM": "xterm", "INVOCATION_ID": "x"}, USER_UNIT, "not in tmux"),
    ],
)
def test_what_a_worker_would_live_in(environment: dict[str, str], cgroup: str, word: str) -> None:
    assert word in check_terminal(environment, cgroup).told


def test_gpus_as_the_driver_tells() -> None:
    told = check_gpus(Reading((), "none", "the driver has not answered for 10 s"))
    assert (told.level, "has not answered" in told.told) == (Level.BAD, True)
    assert check_gpus(NO_GPU).level is Level.OK


def test_a_worker_deaf_to_term_few_descriptors_and_a_bad_setting(bench: Bench) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(COMMAND), "worker", "--gpu-probe", "none"],
        env=bench.environment,
        cwd=bench.project,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: list(bench.home.glob("locks/worker-*.wake")))
        wait_until(lambda: "1 alive" in doctor(bench)[1].get("workers", {}).get("told", ""))
        bench.script("backprop.config.json", '{"gpu": {"probe": "none"}, "maxParallel": -1}')
        done = subprocess.run(["sh", "-c", "ulimit -n 64; exec backprop doctor --json"], env=bench.environment,
                              cwd=bench.project, capture_output=True, text=True, check=False)  # fmt: skip
    finally:
        worker.kill()
        worker.wait()
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == DOCTOR_FOUND
    assert "ignores SIGTERM" in found["signals"]["told"]
    assert found["descriptors"]["level"] == "note"
    assert "maxParallel" in found["settings"]["told"]
    assert found["settings"]["level"] == "bad"
