"""SECURITY.md, claim by claim: one whole chain is looked at from outside, and what is planted in its way is refused."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backprop.cli.submit.shell import environment_of_shell
from backprop.scheduler.home import layout, run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.wake_pipes import WakePipe
from backprop.worker.executor import locks
from backprop.worker.wakeup import wake_path, wake_workers
from tests.support.fake_gpus import impatient
from tests.support.harness import ROOT, Bench, alive, wait_until
from tests.support.store_rows import SPEC

OURS = ("cli", "scheduler", "worker", "migrations", "sdk")
SECRET = "s3cr3t-4f1c9e"
"""Seen nowhere but where it may be."""
TRAINS = f"""
    import os, sys
    import backprop
    with open("interfaces", "w") as file:
        file.writelines(line.split(":")[0].strip() + "\\n" for line in open("/proc/net/dev") if ":" in line)
    assert os.environ["API_TOKEN"] == "{SECRET[::-1]}"[::-1] == os.environ["GIVEN"]
    if os.environ["BACKPROP_SEGMENT"] != "1":
        sys.exit(0)
    with open("one.ckpt", "w") as file:
        file.write("1")
    backprop.checkpoint("one.ckpt", step=1)
    sys.exit(75)
"""
CHAIN = """
set -e
umask 000
backprop run -q --min-free-ram 0 --max-cpu-load 1000 --env GIVEN=$API_TOKEN train.py
backprop worker --drain
backprop list --json
"""
LOOKS = """
backprop show train --json
backprop logs train
backprop doctor || true
"""
SHADOWS = ("click", "msgspec", "peewee", "filelock", "psutil", "pynvml", "rich", "sitecustomize", "usercustomize",
           "files", "proctree", "leader", "segment")  # fmt: skip
"""Modules that Backprop or Python itself would import, planted in the directory where all is started."""
CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)[ (](.*)")
BIRTHS = ("clone", "clone3")
FILE_CALLS = ("openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat",
              "rmdir", "symlink", "symlinkat", "link", "linkat", "mknod", "mknodat", "chmod", "fchmodat",
              "truncate")  # fmt: skip
OPENS_TO_WRITE = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
WRITABLE = re.compile(
    r"/dev/(null|tty)|/proc/\d+/oom_score_adj|/proc/self/fd/\d+|.*/worker/supervisor/__pycache__(/.*)?"
    r"|(code-[0-9a-f]+\.patch|provenance(-\d+)?\.json)(\.\d+\.tmp)?"
)
"""The supervisor's Python runs with -I, so it does not hear of PYTHONDONTWRITEBYTECODE. What notes the code of a run
works in that run's folder, and names its files alone."""


@dataclass(frozen=True)
class Seen:
    """A chain of two segments that has ended. `trace`: its system calls, None where strace cannot be had."""

    bench: Bench
    user_home: Path
    temporary: Path
    output: str
    trace: list[str] | None

    def calls(self) -> list[tuple[str, str, str]]:
        """(program, system call, the rest of the line) of every call; skips the test where there is no trace.

        The program is what the process became last; a thread's is its process's. A call that strace shows in two halves
        is two.
        """
        if self.trace is None:
            pytest.skip("strace is missing or may not trace here")
        found = [match.groups() for line in self.trace if (match := CALL.match(line))]
        program = {
            pid: words.split('"')[1] for pid, name, words in found if name == "execve" and '"' in words
        }
        for pid, name, rest in found:
            if name in BIRTHS and (born := re.search(r"\) += (\d+)$", rest)) and pid in program:
                program.setdefault(born[1], program[pid])
        return [(program.get(pid, "?"), name, rest) for pid, name, rest in found if name not in BIRTHS]


def permitted(*words: str) -> bool:
    """Whether this machine lets us."""
    return shutil.which(words[0]) is not None and (
        subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("chain")
    bench = Bench(folder)
    bench.script("train.py", TRAINS)
    for name in SHADOWS:
        bench.script(f"{name}.py", f"open({str(folder / 'executed')!r}, 'a').write({name!r})\n")
    # A vendor's driver library may do as it likes; what is ours is seen without it.
    driver = any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd"))
    bench.script("backprop.config.json", json.dumps({"gpu": {"probe": "none" if driver else "auto"}}))
    user_home, temporary = folder / "user", folder / "tmp"
    user_home.mkdir()
    temporary.mkdir()
    environment = bench.environment | {
        "HOME": str(user_home),
        "TMPDIR": str(temporary),
        "API_TOKEN": SECRET,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    trace = folder / "trace"
    tracer = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-s",
        "4096",
        "-o",
        str(trace),
        "-e",
        f"trace=%network,execve,{','.join((*BIRTHS, *FILE_CALLS))}",
    ]
    words = tracer if permitted("strace", "-f", "-o", "/dev/null") else []
    done = subprocess.run([*words, "sh", "-c", CHAIN + LOOKS], env=environment, cwd=bench.project, capture_output=True,
                          text=True, timeout=100, check=False)  # fmt: skip
    try:
        assert done.returncode == 0, done
        assert '"completed"' in done.stdout, done
        lines = trace.read_text(errors="replace").splitlines() if words else None
        yield Seen(bench, user_home, temporary, done.stdout + done.stderr, lines)
    finally:
        bench.close()


def test_no_process_of_ours_touches_the_network(seen: Seen) -> None:
    """Nothing is connected or listened to, but by loginctl and systemd-inhibit, which ask systemd. To bind a port tells
    whether it is free. A worker and its supervisors have unnamed pairs between them, which nobody else can reach."""
    calls = seen.calls()
    network = [call for call in calls if call[1] not in (*FILE_CALLS, "execve")]
    ours = [call for call in network if not call[0].endswith(("/loginctl", "/systemd-inhibit"))]
    pair = {"socketpair", "getsockname", "getsockopt", "sendmsg", "recvmsg", "sendto", "recvfrom"}
    port = {"socket", "setsockopt", "bind"}
    others = [call for call in ours if call[1] not in pair | port]
    assert not others, "none that connects a socket, or listens; getpeername shows one that was never closed"
    pairs = [rest for _, name, rest in ours if name == "socketpair" and not rest.startswith("resumed")]
    assert all(rest.startswith("AF_UNIX") for rest in pairs), pairs
    assert {"sh", "backprop"} <= {Path(program).name for program, _, _ in calls}, "the trace has seen them"
    assert any("worker/supervisor" in rest for _, name, rest in calls if name == "execve")


def test_only_these_programs_are_executed(seen: Seen) -> None:
    names = {Path(program).name for program, _, _ in seen.calls()}
    assert {name for name in names if not name.startswith("python")} <= {
        "sh",
        "backprop",
        "loginctl",
        "systemd-inhibit",
        "cat",
    }


def test_nothing_is_written_outside_the_home_and_what_the_script_writes(seen: Seen) -> None:
    assert list(seen.user_home.iterdir()) == []
    assert list(seen.temporary.iterdir()) == []
    left = {path.name for path in seen.bench.project.iterdir()}
    scripts = {"train.py", "backprop.config.json", *(f"{name}.py" for name in SHADOWS)}
    assert left == scripts | {"interfaces", "one.ckpt"}
    for call in seen.calls():
        _, name, rest = call
        if name not in FILE_CALLS or (name == "openat" and not OPENS_TO_WRITE.search(rest)):
            continue
        for path in re.findall(r'"([^"]*)"', rest):
            inside = path.startswith((str(seen.bench.home), "interfaces", "one.ckpt"))
            assert inside or WRITABLE.fullmatch(path), call


def test_all_of_the_home_is_closed_whatever_the_umask_and_the_script_keeps_its_own(seen: Seen) -> None:
    paths = [seen.bench.home, *seen.bench.home.rglob("*")]
    assert len(paths) > 20
    assert {path.name for path in paths} >= {"spec.json", "events.jsonl", "supervisor.log", "log", "backups"}
    for path in paths:
        wanted = 0o700 if path.is_dir() else 0o600
        assert path.lstat().st_mode & 0o7777 == wanted, path
    assert (seen.bench.project / "one.ckpt").stat().st_mode & 0o777 == 0o666


def test_the_environment_is_in_the_runs_spec_and_nowhere_else(seen: Seen) -> None:
    holding = [
        path for path in seen.bench.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert [path.name for path in holding] == ["spec.json"]
    assert SECRET not in seen.output


def test_no_file_of_the_directory_is_executed_but_the_script(seen: Seen) -> None:
    executed = seen.bench.home.parent / "executed"
    assert not executed.exists(), executed.read_text()


def test_a_whole_chain_without_any_network_interface(bench: Bench) -> None:
    if not permitted("unshare", "-rn"):
        pytest.skip("no network namespace can be made here")
    bench.script("train.py", TRAINS)
    bench.script("backprop.config.json", '{"gpu": {"probe": "none"}}')
    done = subprocess.run(["unshare", "-rn", "sh", "-c", CHAIN], env=bench.environment | {"API_TOKEN": SECRET},
                          cwd=bench.project, capture_output=True, text=True, timeout=100, check=False)  # fmt: skip
    assert done.returncode == 0, done
    assert '"completed"' in done.stdout, done
    assert (bench.project / "interfaces").read_text() == "lo\n", (
        "there was none but the loopback, and that is down"
    )


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}
FORBIDDEN_MODULES = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "socketserver", "xmlrpc", "asyncio",
                     "pickle", "marshal", "shelve", "runpy", "code", "webbrowser"}  # fmt: skip


@pytest.mark.parametrize("folder", OURS)
def test_no_text_becomes_code_and_no_module_knows_the_network(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                of_re = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "re"
                assert name not in FORBIDDEN_CALLS or of_re, f"{path}:{node.lineno} calls {name}"
                assert all(word.arg != "shell" for word in node.keywords), (
                    f"{path}:{node.lineno} uses a shell"
                )
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                forbidden = name.split(".")[0].lstrip("_") in FORBIDDEN_MODULES and name != "urllib.parse"
                assert not forbidden or (
                    (name.lstrip("_") == "socket" and path.name in ("standby.py", "ports.py"))
                    or (name == "asyncio" and path.parent.name == "keys")
                ), f"{path} imports {name}"


PLANTED_IN_A_RUN = {
    "run.lock": "held",
    "1/log": "failed",
    "1/order.json.tmp": "failed",
    "1/supervisor.lock": "held",
    "1/supervisor.log": "failed",
    "1/processes.json.tmp": "completed",
    "1/pause.json.tmp": "completed",
    "1/exit.json.tmp": "completed",
}
"""Each name under which a link is planted, and how its run ends."""


def test_links_planted_in_runs_are_never_followed_and_harm_their_run_alone(bench: Bench) -> None:
    bench.script("train.py", "print('ready')")
    victims = bench.home.parent / "victims"
    victims.mkdir()
    planted_in: dict[str, str] = {}
    for number, name in enumerate(PLANTED_IN_A_RUN):
        run = bench.queue("train.py")
        planted_in[run] = name
        planted = bench.home / "runs" / run / name
        planted.parent.mkdir(mode=0o700, exist_ok=True)
        planted.symlink_to(victims / str(number))
    healthy = bench.queue("train.py")
    # A lock that cannot be looked at is looked at again for ten minutes, and then its run is held.
    worker = bench.worker("-p", "20", command=impatient("worker.segments.patience.PATIENCE_S=1.0"))
    bench.wait_for(healthy, "completed")
    wait_until(
        lambda: {planted_in[run]: bench.state(run) for run in planted_in} == PLANTED_IN_A_RUN, saw=bench.runs
    )
    bench.end_worker(worker, signal.SIGKILL)
    assert list(victims.iterdir()) == []


def test_links_planted_among_locks_are_not_followed(tmp_path: Path) -> None:
    home, victim = layout.ensure(Home(tmp_path / "home")), tmp_path / "victim"
    for path in (locks.worker_lock_path(home.locks, "w1"), wake_path(home.locks, "w1"),
                 home.locks / "admission.lock", home.locks / "run"):  # fmt: skip
        path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        locks.take(home.locks / "run")
    with pytest.raises(OSError, match="symbolic link"):
        locks.held(home.locks / "run")
    with pytest.raises(OSError, match="symbolic link"):
        locks.hold_worker_lock(home.locks, "w1")
    with pytest.raises(OSError, match="symbolic link"), locks.Admission(home.locks):
        pass
    victim.touch()
    assert wake_workers(home.locks) == 0
    assert victim.read_bytes() == b""
    victim.unlink()
    WakePipe(wake_path(home.locks, "w1")).close()
    folder = home.runs / "r1"
    folder.mkdir()
    (folder / "spec.json.tmp").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        run_folder.write_spec(folder, "r1", "train", SPEC, {}, 1.0)
    assert not victim.exists()


OTHER = """
import json, os, signal, sys
home, pid = sys.argv[1], int(sys.argv[2])
tries = {
    "list": lambda: os.listdir(home),
    "read": lambda: open(home + "/backprop.db", "rb"),
    "write": lambda: open(home + "/locks/x", "w"),
    "signal": lambda: os.kill(pid, signal.SIGTERM),
    "environment": lambda: open(f"/proc/{pid}/environ", "rb").read(),
}
refused = []
for name, attempt in tries.items():
    try:
        attempt()
    except PermissionError:
        refused.append(name)
print(json.dumps([refused, sorted(tries)]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_can_neither_look_in_nor_signal() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        bench = Bench(Path(folder))
        try:
            bench.script("train.py", "import time\nprint('ready', flush=True)\ntime.sleep(600)\n")
            run = bench.queue("train.py", "--grace-seconds", "1")
            bench.worker()
            bench.wait_for_log(run, "ready")
            leader = bench.leader(run)
            words = ["/usr/bin/env", "python3", "-I", "-c", OTHER, str(bench.home), str(leader)]
            if shutil.which("python3", path="/usr/bin:/bin") is None:
                pytest.skip("no Python that another user may execute")
            done = subprocess.run(words, user=65534, group=65534, extra_groups=[], env={"PATH": "/usr/bin:/bin"},
                                  cwd="/", capture_output=True, text=True, check=False)  # fmt: skip
            refused, tried = json.loads(done.stdout)
            assert sorted(refused) == tried, done
            assert alive(leader)
            bench.backprop("stop", run)
            bench.wait_for(run, "stopped")
        finally:
            bench.close()


def test_what_a_backprop_around_us_said_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_EVENTS", "/somewhere")
    monkeypatch.setenv("BACKPROP_HOME", "/home")
    kept = environment_of_shell([])
    assert "BACKPROP_EVENTS" not in kept
    assert kept["BACKPROP_HOME"] == "/home"


def test_a_reused_pid_is_never_signalled(bench: Bench) -> None:
    """An innocent process under a dead supervisor's pid: told apart by its start time."""
    bench.script("train.py", "import time\nprint('ready', flush=True)\ntime.sleep(600)\n")
    run = bench.queue("train.py", "--grace-seconds", "1")
    worker = bench.worker()
    bench.wait_for_log(run, "ready")
    known = bench.folder(run) / "processes.json"
    leader, supervisor = bench.leader(run), bench.supervisor(run)
    bench.end_worker(worker, signal.SIGKILL)
    for pid in (supervisor, leader):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not bench.left(), saw=bench.left)
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        record = json.loads(known.read_text())
        record["leader"][0] = record["supervisor"][0] = innocent.pid
        known.write_text(json.dumps(record))
        bench.backprop("stop", run)
        bench.worker()
        bench.wait_for(run, "stopped")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_every_test_named_in_the_document_exists() -> None:
    named = re.findall(r"`([a-z_/]*test_\w+)\.(test_\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 10
    for module, test in named:
        assert f"def {test}(" in (ROOT / "tests" / f"{module}.py").read_text(), f"{module}.{test}"
