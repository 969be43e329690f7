"""Is what a job of a cluster becomes: claims its segment, prepares its environment and looks after its supervisor.

A cluster starts it as `python -I -S <this folder> --job SEGMENT_FOLDER TOKEN`. Its claim decides whether the segment
begins: a job that is started twice, or late, finds it taken and goes. It tells the worker that it lives, obeys wishes
left in the folder, and passes the engine's signals on:

    USR2  the job's time is nearly up      → let the segment checkpoint and end
    TERM  the engine ends the job          → the same, and end it now just before the engine kills
    a node that cannot see its folder for half a lease ends its segment: somebody else may begin the next one by then

Standard library only, Python 3.11, flat imports: it runs from a copy on the share.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import claim
import failpoint
import files
import process_tree
from once import make_once

PR_SET_CHILD_SUBREAPER = 36
HERE = Path(__file__).parent
SIGNALS = {signal.SIGTERM, signal.SIGUSR2, signal.SIGQUIT, signal.SIGCHLD, signal.SIGCONT}
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGUSR1)
LEASE_S = 120.0
STARTS_AGAIN = 20
"""A supervisor that goes so often is not started again."""
DROPPED = ("SLURM_", "SBATCH_", "SRUN_", "PMI", "XDG_SESSION_", "DBUS_", "SSH_")
DROPPED_NAMES = frozenset(
    "XDG_RUNTIME_DIR DISPLAY WAYLAND_DISPLAY TERM TMPDIR HOSTNAME CUDA_VISIBLE_DEVICES".split()  # noqa: SIM905
)
"""Of the shell that queued the run: they mean something on that machine, or in that job, alone."""
PASSED = frozenset(
    "TMPDIR HOSTNAME CUDA_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ROCR_VISIBLE_DEVICES ZE_AFFINITY_MASK SLURM_JOB_ID "  # noqa: SIM905
    "SLURM_JOB_NODELIST SLURM_JOB_PARTITION SLURM_CPUS_ON_NODE SLURM_MEM_PER_NODE SLURM_TMPDIR SLURM_CONF "
    "SLURM_RESTART_COUNT".split()
)
"""Of the job. Not SLURM_NTASKS, SLURM_PROCID and their like: Lightning and MPI would believe that Slurm manages ranks.
"""
KILL_WAIT_S = 30.0
"""What Slurm waits between TERM and KILL by default; an order says what the site has."""


def say(text: str) -> None:
    """Print a line into the job's own output."""
    print(f"backprop: {text}", flush=True)


def main(folder: Path, token: str) -> int:
    """Look after one segment; return the exit code."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    order = files.read(folder / "order.json")
    if order is None or order.get("token") != token:
        say(f"{folder} holds another order; nothing was started")
        return 0
    job = os.environ.get("SLURM_JOB_ID")
    who = {
        "job": job,
        "restart": os.environ.get("SLURM_RESTART_COUNT"),
        "host": os.environ.get("SLURMD_NODENAME", os.uname().nodename),
    }
    begins = claim.body(token, **who, pid=os.getpid(), boot_id=process_tree.boot_id(), at_s=time.time())
    if not make_once(folder / claim.STARTED, begins):
        say(f"this segment is taken: {files.read(folder / claim.STARTED)}; nothing was started")
        return 0
    failpoint.at("claimed on node")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    agent = NodeAgent(folder, order, job)
    agent.end_older()
    try:
        agent.write_environment()
    except (OSError, ValueError) as error:
        say(f"its environment cannot be prepared: {error}")
        record: dict[str, object] = {
            "format": 1,
            "could_not_start": str(error),
            "running_s": 0.0,
            "ended_at_s": time.time(),
        }
        files.write_when_possible(folder / "exit.json", record)
        return 1
    return agent.run()


class NodeAgent:
    """Looks after one segment on its node. Durations are seconds on CLOCK_MONOTONIC."""

    def __init__(self, folder: Path, order: dict[str, object], job: str | None) -> None:
        self._folder = folder
        self._order = order
        self._job = job
        lease_s = order.get("lease_s")
        self._lease_s = float(lease_s) if isinstance(lease_s, int | float) else LEASE_S
        self._beat_s = self._lease_s / claim.BEATS
        self._seen_s = time.monotonic()
        self._beats = 0
        self._beat_due_s = 0.0
        self._asked = False
        self._kill_due_s: float | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def end_older(self) -> None:
        """Kill what an earlier segment of this run has left on this node: its own supervisor and agent were killed."""
        number = int(self._folder.name)
        for earlier in range(1, number):
            folder = self._folder.with_name(str(earlier))
            if (folder / "order.json").exists() and not (folder / "exit.json").exists():
                cookie = (os.fsencode(f"BACKPROP_EVENTS={folder}/events.jsonl"),)
                for process in process_tree.carriers(cookie):
                    say(f"process {process.pid} is left of segment {earlier}: killed")
                    process_tree.send(process, signal.SIGKILL)

    def write_environment(self) -> None:
        """Write what the leader gets: that of the run's shell, what the job gives, and what the setup lines change.
        Raises OSError, ValueError."""
        shell = files.read(Path(str(self._order["queued_spec"])))
        if shell is None:
            raise FileNotFoundError(2, "No such file or unreadable", str(self._order["queued_spec"]))
        environment = {name: value for name, value in _pairs(shell["environment"]) if not _is_dropped(name)}
        environment |= {name: os.environ[name] for name in PASSED if name in os.environ}
        if self._job is not None:
            environment["BACKPROP_JOB"] = self._job
        environment = self._set_up(environment)
        files.write(self._folder / "environment.json", {"environment": environment}, durable=False)

    def _set_up(self, environment: dict[str, str]) -> dict[str, str]:
        lines = _items(self._order.get("setup"))
        if not lines:
            return environment
        script = "\n".join(["set -e", *(f"{{ {line}\n}} >&2" for line in lines), "exec env -0"])
        done = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-c", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"a setup line of the cluster exited {done.returncode}")
        pairs = (os.fsdecode(entry).partition("=") for entry in done.stdout.split(b"\0") if entry)
        return {name: value for name, _, value in pairs if name not in ("_", "SHLVL", "PWD", "OLDPWD")}

    def run(self) -> int:
        """Look after the segment until its end is on record; return the exit code."""
        threading.Thread(target=self._keep_lease, daemon=True).start()
        self._start_supervisor("0")
        while True:
            if (self._folder / "exit.json").exists():
                self._clean_up()
                return 0
            if (
                self._supervisor is not None
                and self._supervisor.poll() is not None
                and not self._start_again()
            ):
                return 1
            self._look()
            info = signal.sigtimedwait(SIGNALS, min(1.0, self._beat_s / 2))
            if info is not None:
                self._obey(info.si_signo)
            if self._kill_due_s is not None and time.monotonic() >= self._kill_due_s:
                self._kill_due_s = None
                self._send(signal.SIGQUIT)

    def _start_supervisor(self, lock: str) -> None:
        self._starts += 1
        nobody = os.open("/dev/null", os.O_RDONLY)
        words = [str(self._order.get("python") or sys.executable), "-I", "-S", "-X", "utf8"]
        with open(self._folder / "supervisor.log", "ab") as errors:  # noqa: PTH123
            self._supervisor = subprocess.Popen(
                [*words, str(HERE), str(self._folder), str(nobody) if lock == "0" else "-1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(nobody,),
                start_new_session=True,
                cwd="/",
            )
        os.close(nobody)

    def _start_again(self) -> bool:
        """Give the segment a new supervisor where its leader, or anything else of it, lives; else record its loss."""
        assert self._supervisor is not None
        time.sleep(0.1)
        if (self._folder / "exit.json").exists():
            return True
        cookie = (os.fsencode(f"BACKPROP_EVENTS={self._folder}/events.jsonl"),)
        if self._starts < STARTS_AGAIN and process_tree.carriers(cookie):
            say(f"its supervisor is gone ({self._supervisor.returncode}); starting a new one")
            self._start_supervisor("-1")
            self._asked = False
            return True
        say(f"its supervisor is gone ({self._supervisor.returncode}), and nothing of the segment lives")
        record: dict[str, object] = {
            "format": 1,
            "seen_to_end": False,
            "running_s": 0.0,
            "ended_at_s": time.time(),
        }
        files.write_when_possible(self._folder / "exit.json", record)
        return True

    def _look(self) -> None:
        """Show that this node sees its folder, and obey what lies there."""
        now_s = time.monotonic()
        try:
            names = set(os.listdir(self._folder))  # noqa: PTH208
            if now_s >= self._beat_due_s:
                self._beats += 1
                beat: dict[str, object] = {"format": claim.FORMAT, "number": self._beats, "at_s": time.time()}
                files.write(self._folder / claim.BEAT, beat, durable=False)
                self._beat_due_s = now_s + self._beat_s
        except OSError:
            return
        self._seen_s = time.monotonic()
        if claim.KILL in names:
            self._note(claim.WISH)
            self._send(signal.SIGQUIT)
        elif claim.ASK in names or claim.REVOKED in names:
            self._ask(claim.WISH if claim.ASK in names else claim.ENGINE)

    def _obey(self, number: int) -> None:
        if number == signal.SIGUSR2:
            say("the job's time is nearly up")
            self._ask(claim.ENGINE)
        elif number == signal.SIGTERM:
            say("the cluster ends this job")
            self._ask(claim.ENGINE, told=True)
            wait_s = self._order.get("kill_wait_s")
            kill_wait_s = float(wait_s) if isinstance(wait_s, int | float) else KILL_WAIT_S
            self._kill_due_s = self._kill_due_s or time.monotonic() + max(kill_wait_s - 5.0, 1.0)
        elif number == signal.SIGQUIT:
            self._send(signal.SIGQUIT)

    def _ask(self, whose: str, told: bool = False) -> None:
        """Have the supervisor ask the segment to save and end, once. `told`: all of its processes got a TERM too."""
        if not self._asked:
            self._note(whose, told)
            self._asked = self._send(signal.SIGTERM)

    def _note(self, whose: str, told: bool = False) -> None:
        if not (self._folder / claim.ENDED_BY).exists():
            files.write_if_possible(self._folder / claim.ENDED_BY, {"by": whose, "told": told})

    def _send(self, number: signal.Signals) -> bool:
        supervisor = self._supervisor
        if supervisor is None or supervisor.poll() is not None:
            return False
        with contextlib.suppress(OSError):
            supervisor.send_signal(number)
            return True
        return False

    def _keep_lease(self) -> None:
        """End the segment once its folder was out of sight for half a lease. Touches no file: the share may hang."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            time.sleep(self._beat_s / 4)
            out_s = time.monotonic() - self._seen_s
            if out_s >= self._lease_s / 2:
                self._send(signal.SIGQUIT)
            if out_s >= self._lease_s * 3 / 4:
                # The supervisor may hang at the share itself.
                own = self._supervisor.pid if self._supervisor is not None else 0
                for process in process_tree.descendants(os.getpid()):
                    if process.pid != own:
                        process_tree.send(process, signal.SIGKILL)

    def _clean_up(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / "environment.json").unlink()
        if self._supervisor is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(5)


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []  # pyright: ignore[reportUnknownArgumentType]


def _pairs(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        raise ValueError(f"not an object: {value!r}")  # noqa: TRY004 - as for any other damage
    return [(str(name), str(text)) for name, text in value.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _is_dropped(name: str) -> bool:
    return name.startswith(DROPPED) or name in DROPPED_NAMES
