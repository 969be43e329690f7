"""Starts Slurm with two nodes on this host in a folder of its own, and ends all of it by pid.

Its munged has a key and a socket of its own, so that one that serves the machine is left alone. Every daemon is a child
of the test's process and dies with it.
"""

import contextlib
import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
SlurmdTimeout=20
MinJobAge=60
MessageTimeout=10
ReturnToService=2
GresTypes=gpu
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2,sched_min_interval=10000
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MailProg=/bin/true
EnforcePartLimits=ALL
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 PriorityTier=10 OverSubscribe=NO
PartitionName=high Nodes=n1,n2 PriorityTier=100
PartitionName=low Nodes=n1,n2 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=lowgrace Nodes=n1,n2 PriorityTier=1 PreemptMode=CANCEL GraceTime=20
PartitionName=short Nodes=n1,n2 PriorityTier=10 MaxTime=2
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=16000"
    " Gres=gpu:2 State=UNKNOWN"
)


def missing() -> str | None:
    """Return why there can be no cluster here; None where there can be one."""
    if os.geteuid() != 0:
        return "Slurm's daemons are started by root alone"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


@dataclass
class SlurmCluster:
    """One running cluster. `environment`: what its commands need. `daemons`: by name."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(
        default_factory=dict[str, "subprocess.Popen[bytes]"]
    )

    def start(self) -> None:
        """Start all daemons, and wait until both nodes are idle."""
        for name in ("state", "spool", "conf"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self.environment = {"SLURM_CONF": str(self.folder / "conf" / "slurm.conf")}
        os.chmod(self.folder, 0o755)  # noqa: PTH101 - munged refuses a folder that others may write
        self._munge()
        self.start_daemon("slurmctld")
        for name in NODES:
            self.start_daemon(name)
        self.wait_for_nodes()

    def wait_for_nodes(self, timeout_s: float = 60.0) -> None:
        """Wait until every node takes jobs."""
        end = time.monotonic() + timeout_s
        while (told := self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%t", check=False).split()) not in (
            ["idle"] * len(NODES),
            ["mix"] * len(NODES),
            ["idle", "mix"],
            ["mix", "idle"],
        ):
            assert time.monotonic() < end, f"nodes are {told}; {self._logs()}"
            time.sleep(0.1)

    def start_daemon(self, name: str) -> None:
        """Start slurmctld, or slurmd for a node."""
        words = ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", name]
        self.daemons[name] = self._spawn(words)

    def end_daemon(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one daemon."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        daemon.wait(30)

    def ask(self, *words: str, check: bool = True, timeout_s: float = 30.0) -> str:
        """Run one of Slurm's commands; return what it prints."""
        done = subprocess.run(
            words,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def jobs(self) -> list[tuple[str, str, str]]:
        """Return number, state and name of each job that is not over."""
        lines = self.ask("squeue", "-h", "-o", "%i|%T|%j").splitlines()
        return [(number, state, name) for number, state, name in (line.split("|") for line in lines)]

    def stop(self) -> None:
        """End all jobs and daemons, and wait for every process of theirs."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            if "slurmctld" in self.daemons and self.jobs():
                self.ask("scancel", "--signal=KILL", "--full", "--user", getpass.getuser(), check=False)
                self.ask("scancel", "--user", getpass.getuser(), check=False)
        left = self._children()
        for name in list(self.daemons):
            self.daemons[name].kill()
        for name in list(self.daemons):
            self.daemons.pop(name).wait(30)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _children(self) -> list[int]:
        """Return the step daemons of this cluster, with what is below them."""
        from backprop.worker.supervisor import process_tree

        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = stat.read_bytes()
                environ = (stat.parent / "environ").read_bytes()
                if words.startswith(b"slurmstepd") and str(self.folder).encode() in environ:
                    pid = int(stat.parent.name)
                    found += [pid, *(one.pid for one in process_tree.descendants(pid))]
        return found

    def _write_configuration(self) -> None:
        host, ports = socket.gethostname(), _free_ports(1 + len(NODES))
        nodes = "\n".join(
            NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:], strict=True)
        )
        conf = CONF.format(host=host, ctld=ports[0], folder=self.folder, nodes=nodes)
        (self.folder / "conf" / "slurm.conf").write_text(conf)
        gpus = self.folder / "gpus"
        gpus.mkdir()
        lines: list[str] = []
        for name in NODES:
            for number in range(2):
                device = gpus / f"{name}-{number}"
                os.mknod(device, 0o20600, os.makedev(1, 3))
                lines.append(f"NodeName={name} Name=gpu File={device}")
        (self.folder / "conf" / "gres.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "conf" / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.daemons["munged"] = self._spawn(
            [
                "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
                f"--pid-file={self.folder}/munged.pid", f"--seed-file={self.folder}/munged.seed",
                f"--log-file={self.folder}/munged.log", "--num-threads=2",
            ]
        )  # fmt: skip
        end = time.monotonic() + 20
        while not (self.folder / "munge.socket").exists():
            assert time.monotonic() < end, self._logs()
            time.sleep(0.02)

    def _spawn(self, words: list[str]) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{words[0]}.out").open("ab") as out:
            return subprocess.Popen(
                words,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )

    def _logs(self) -> str:
        tails = [
            f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in self.folder.glob("*.log")
        ]
        tails += [
            f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in self.folder.glob("*.out")
        ]
        return "\n".join(tails)


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[SlurmCluster]:
    """Yield a cluster that lives in `folder`."""
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
