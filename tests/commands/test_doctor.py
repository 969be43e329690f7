"""`backprop doctor`: what it sees on real homes, databases and processes; that looking changes nothing; repairs."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backprop.cli.doctor.database import check_clock, check_database, check_leftovers
from backprop.cli.doctor.finding import Finding, Level
from backprop.cli.doctor.home import check_disk, check_file_system, check_home, check_locks
from backprop.cli.doctor.login import Login, check_logout, check_terminal, read_login
from backprop.cli.doctor.machine import (
    SignalMasks,
    check_gpus,
    check_signals,
    lasting_signal_masks,
    signal_masks,
)
from backprop.cli.exit_codes import DOCTOR_FOUND
from backprop.migrations import runner
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import connection as databases
from backprop.scheduler.store import integrity
from backprop.scheduler.store.connection import Database, open_database
from backprop.worker.executor import locks
from backprop.worker.probes import vendor_tool
from backprop.worker.probes.reading import NO_GPU, Reading
from backprop.worker.probes.vendor_tool import ToolResult
from backprop.worker.wakeup import wake_path
from tests.support.harness import COMMAND, Bench, alive, wait_until
from tests.support.store_rows import add_run

OLD_S = 3600.0
SAVES_AND_WAITS = """
    import json, os, signal, sys, time
    signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
    if os.environ["BACKPROP_SEGMENT"] != "1":
        sys.exit(0)
    open("one.ckpt", "w").write("1")
    print(json.dumps({"event": "checkpoint_saved", "path": "one.ckpt", "step": 1}), flush=True)
    time.sleep(600)
"""


def test_a_machine_without_a_board_is_named(bench: Bench) -> None:
    _, found = doctor(calm(bench))
    assert found["board"]["level"] == "ok"
    assert str(bench.home.parent / "board") in found["board"]["told"]
    code, found = doctor(bench, env={"BACKPROP_BOARD": str(bench.home.parent / "none")})
    assert (code, found["board"]["level"]) == (0, "note")
    assert "none: No such file or directory" in found["board"]["told"]
    assert "BACKPROP_BOARD" in found["board"]["advice"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return layout.ensure(Home(tmp_path / "home"))


def calm(bench: Bench) -> Bench:
    """No GPU is looked at and a full test machine is no finding: what is left is ours."""
    bench.script("backprop.config.json", '{"gpu": {"probe": "none"}, "minFreeDiskGB": 0}')
    return bench


def not_well(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in found.values() if one["level"] != "ok"]


def doctor(bench: Bench, *words: str, **options: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """Its exit code, and its findings by name, after checking that the two agree."""
    done = bench.backprop("doctor", "--json", *words, **options)
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    found = {one["name"]: one for one in told["findings"]}
    assert len(found) == len(told["findings"]), "names are given once"
    bad = [one for one in told["findings"] if one["level"] == "bad"]
    assert told["sound"] is (not bad)
    assert done.returncode == (DOCTOR_FOUND if bad else 0), (done, bad)
    return done.returncode, found


def seen(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below, with size, mode and time of change."""
    found = {str(path): path.lstat() for path in (folder, *folder.rglob("*"))}
    return {path: (info.st_size, info.st_mode, info.st_mtime_ns) for path, info in found.items()}


def old(path: Path) -> Path:
    os.utime(path, (time.time() - OLD_S,) * 2, follow_symlinks=False)
    return path


def test_where_nothing_is_yet_nothing_is_made_and_nothing_is_wrong(bench: Bench) -> None:
    code, found = doctor(calm(bench))
    assert code == 0, not_well(found)
    assert not bench.home.exists()
    assert "does not exist yet" in found["home"]["told"]
    assert "3." in found["python"]["told"]
    doctor(bench, "--repair")
    assert not bench.home.exists(), "there was nothing to repair"


def test_one_aligned_line_a_check_and_advice_below(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    bench.queue("train.py")
    lines = bench.backprop("doctor").stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert {line[:6] for line in heads} <= {"ok    ", "note  ", "BAD   "}
    column = min(len(line) - len(line[6:].split("  ", 1)[1].lstrip()) for line in heads)
    for line in heads:
        assert line[column - 1] == " ", line
        assert line[column] != " ", line
    advice = [line for line in lines if line.startswith(" ")]
    assert " " * column + "tmux new -d -s backprop 'backprop worker'" in advice


def test_looking_changes_nothing(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    bench.queue("train.py")
    bench.home.chmod(0o755)
    before = seen(bench.home)
    code, found = doctor(bench)
    assert seen(bench.home) == before
    assert code == 0
    assert "can be read by others (mode 755)" in found["home"]["told"]
    assert found["home"]["level"] == "note"
    assert "sound" in found["database"]["told"]
    assert "rollback journal" in found["database"]["told"]
    assert found["locks"]["level"] == "ok"
    assert "none is running, but 1 run queued" in found["workers"]["told"]
    assert found["workers"]["level"] == "note"
    assert "nothing is repaired" in bench.backprop("--dry-run", "doctor", "--repair").stderr
    assert seen(bench.home) == before
    doctor(bench, "--repair")
    assert bench.home.stat().st_mode & 0o777 == 0o700


def test_a_dead_worker_its_run_and_its_files(bench: Bench) -> None:
    calm(bench).script("train.py", SAVES_AND_WAITS)
    run = bench.queue("train.py")
    worker = bench.worker()
    bench.wait_for_log(run, "checkpoint_saved")
    _, found = doctor(bench)
    assert f"(pid {worker.pid})" in found["workers"]["told"]
    assert found["segments"]["told"] == "1 running"
    assert found["leftovers"]["level"] == "ok"
    assert found["backup"]["level"] == "ok"
    worker.kill()
    worker.wait()
    files = [old(path) for path in bench.home.glob("locks/worker-*")]
    assert len(files) == 2, files
    bench.show(run)  # rolls back what it was killed in the middle of, which the doctor leaves to others
    _, found = doctor(bench)
    assert "is gone: the next worker takes over" in found["segments"]["told"]
    assert found["segments"]["advice"] == "backprop worker"
    assert files[0].name in found["leftovers"]["told"]
    told = json.loads(bench.backprop("doctor", "--json", "--repair").stdout)
    assert any("is dead: struck off" in line for line in told["repaired"]), told
    assert not list(bench.home.glob("locks/worker-*"))
    assert alive(bench.leader(run)), "what lives is not touched"
    again = bench.worker()
    wait_until(lambda: "adopted" in bench.output(1), saw=lambda: bench.output(1))
    bench.end_worker(again)
    bench.worker("--drain")
    assert bench.wait_for(run, "completed")["segment_count"] == 2


def damage(bench: Bench) -> None:
    """As a failing disk would: not by truncation, which a living connection might meet half-way."""
    with (bench.home / "backprop.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 20000)


def test_a_damaged_database_is_told_and_repaired(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    run = bench.queue("train.py")
    damage(bench)
    before = seen(bench.home)
    code, found = doctor(bench)
    assert code == DOCTOR_FOUND
    assert "damaged" in found["database"]["told"]
    assert "backprop doctor --repair" in found["database"]["advice"]
    assert seen(bench.home) == before
    code, found = doctor(bench, "--repair")
    assert code == 0, not_well(found)
    assert "was set aside" in found["backup"]["told"]
    assert [one["id"] for one in bench.runs()] == [run]


def test_repairing_is_safe_while_a_worker_lives(bench: Bench) -> None:
    """Which of the two is first does not matter: both take recovery's lock, and the second finds all well."""
    calm(bench).script("train.py", SAVES_AND_WAITS)
    run, other = bench.queue("train.py"), bench.queue("train.py", "-n", "other")
    bench.worker("-p", "1")
    bench.wait_for_log(run, "checkpoint_saved")
    leader = bench.leader(run)
    damage(bench)
    code, found = doctor(bench, "--repair")
    assert code == 0, not_well(found)
    assert found["folders"]["level"] == "ok"
    assert {one["id"] for one in bench.runs()} == {run, other}
    assert alive(leader)
    wait_until(lambda: "repairing" in bench.output(), saw=bench.output)
    bench.backprop("stop", run)
    bench.wait_for(run, "stopped")
    bench.wait_for_log(other, "checkpoint_saved")
    bench.backprop("stop", other)
    bench.wait_for(other, "stopped")


def test_runs_that_the_database_has_forgotten(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    runs = [bench.queue("train.py")]
    copy = (bench.home / "backprop.db").read_bytes()
    runs.append(bench.queue("train.py"))
    (bench.home / "backprop.db").write_bytes(copy)
    _, found = doctor(bench)
    assert found["folders"]["level"] == "note"
    assert runs[1] in found["folders"]["told"]
    (bench.home / "backprop.db").unlink()
    code, found = doctor(bench)
    assert code == DOCTOR_FOUND
    assert "is missing" in found["database"]["told"]
    assert "2 runs" in found["database"]["told"]
    assert doctor(bench, "--repair")[0] == 0
    assert {one["id"] for one in bench.runs()} == set(runs)


def ask_database(home: Home) -> Finding:
    """What is told of it, having changed nothing."""
    before = seen(home.root)
    finding, opened = check_database(home)
    if opened is not None:
        opened.close()
    assert seen(home.root) == before
    return finding


def sql(home: Home, text: str) -> None:
    connection = sqlite3.connect(home.database, isolation_level=None)
    connection.executescript(text)
    connection.close()


def test_a_wal_database_is_dangerous_on_some_engines_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(home).close()
    sql(home, "PRAGMA journal_mode = WAL")
    monkeypatch.setattr(databases, "corrupts_wal", lambda: True)
    told = ask_database(home)
    assert told.level is Level.BAD
    assert "PRAGMA journal_mode=DELETE" in (told.advice or "")
    sql(home, "PRAGMA journal_mode = DELETE")
    assert ask_database(home).level is Level.OK


@pytest.mark.parametrize(
    ("content", "level", "word"),
    [
        ("PRAGMA application_id = 7; CREATE TABLE notes (text)", Level.BAD, "of another program"),
        (f"PRAGMA application_id = {runner.APPLICATION_ID}; PRAGMA user_version = {runner.LATEST + 1}",
         Level.BAD, "knows up to"),
        (b"", Level.NOTE, "upgrades it"),
        (b"SQLite form", Level.BAD, "damaged"),
        (b"\0" * 5000, Level.BAD, "damaged"),
    ],
)  # fmt: skip
def test_what_its_first_bytes_forbid(home: Home, content: str | bytes, level: Level, word: str) -> None:
    if isinstance(content, str):
        sql(home, content)
    else:
        home.database.write_bytes(content)
    told = ask_database(home)
    assert (told.level, word in told.told) == (level, True), told


CRASH = """
import os, signal, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA cache_size = 1")
c.execute("BEGIN IMMEDIATE")
for n in range(300):
    c.execute("INSERT INTO workers VALUES (?, 1, 1, 1, NULL, NULL)", (f"w{n}" * 200,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_journal_left_by_a_crash_is_no_damage(home: Home) -> None:
    open_database(home).close()
    subprocess.run([sys.executable, "-c", CRASH, str(home.database)], check=False)
    assert home.database.with_name("backprop.db-journal").exists()
    told = ask_database(home)
    assert (told.level, told.advice) == (Level.NOTE, "backprop list"), told
    open_database(home).close()
    assert ask_database(home).level is Level.OK


HOLD = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_database_that_somebody_holds_does_not_hold_the_doctor(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(home).close()
    monkeypatch.setattr(integrity, "PRAGMAS", {**integrity.PRAGMAS, "busy_timeout": 100})
    monkeypatch.setattr(integrity, "PATIENCE_S", 0.1)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(home.database)], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        told, _ = check_database(home)
        assert holder.communicate("")[0] == ""
    assert (told.level, "locked by another process" in told.told) == (Level.BAD, True)
    assert ask_database(home).level is Level.OK


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


def test_something_else_where_the_database_should_be(home: Home) -> None:
    os.mkfifo(home.database, 0o600)
    assert "not a regular file" in check_home(home).told


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


def test_a_clock_that_was_set_back(database: Database) -> None:
    add_run(database, "r1")
    now_s = time.time()
    assert "set back" not in check_clock(database, now_s).told
    told = check_clock(database, -3600.0)
    assert told.level is Level.NOTE
    assert "3601 s behind" in told.told


def test_young_files_of_a_worker_that_is_starting_are_left_alone(home: Home) -> None:
    path = locks.worker_lock_path(home.locks, "w1")
    path.touch()
    assert check_leftovers(home, time.time()).level is Level.OK
    old(path)
    assert check_leftovers(home, time.time()).level is Level.NOTE
    held = locks.take(path)
    assert held is not None
    os.mkfifo(wake_path(home.locks, "w1"))
    old(wake_path(home.locks, "w1"))
    assert check_leftovers(home, time.time()).level is Level.OK
    os.close(held)


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


def test_from_a_directory_that_is_gone(bench: Bench) -> None:
    script = bench.script(
        "gone.sh", "mkdir gone && cd gone && rmdir ../gone && exec backprop doctor --json\n"
    )
    done = subprocess.run(["sh", str(script)], env=bench.environment, cwd=bench.project, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == DOCTOR_FOUND, done
    assert "the current directory no longer exists" in done.stdout


def test_what_is_told_cannot_steer_a_terminal(bench: Bench, tmp_path: Path) -> None:
    evil = tmp_path / "\x1b]0;owned\x07\u202e"
    done = calm(bench).backprop("doctor", env={"BACKPROP_HOME": str(evil)})
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "owned" in done.stdout
