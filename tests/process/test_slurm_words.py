"""What is understood of Slurm's commands: each is a script of this test that prints what a real one was seen to say."""

from pathlib import Path

import pytest

from backprop.scheduler.config.clusters import Cluster
from backprop.worker.executor.cluster.engine import ClusterJob, Full, Phase, Refused, Unsure
from backprop.worker.executor.cluster.slurm import Slurm

TOKEN = "0123456789abcdef"
JOB = ClusterJob("bp-r1-1", TOKEN, Path("/share/runs/r1/1"), ("python3", "x"), limit_min=13, warn_s=45)
HEAD = "JOBID|STATE|COMMENT|NODELIST|REASON\n"


def cluster(**more: object) -> Cluster:
    return Cluster(engine="slurm", folder="/share", **more)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder in front of PATH, into which a test writes its own commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def says(folder: Path, name: str, out: str = "", err: str = "", code: int = 0) -> None:
    """Write a command that prints these texts, notes its arguments, and ends so."""
    (folder / f"{name}.out").write_text(out)
    (folder / f"{name}.err").write_text(err)
    path = folder / name
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/{name}.words\ncat {folder}/{name}.out\n'
        f"cat {folder}/{name}.err >&2\nexit {code}\n"
    )
    path.chmod(0o755)


@pytest.mark.parametrize("out", ["4711\n", "4711;alpha\n", "welcome to alpha\n4711\nhave a nice day\n"])
def test_a_number_is_found_also_in_what_a_wrapper_prints(commands: Path, out: str) -> None:
    says(commands, "sbatch", out)
    assert Slurm(cluster()).submit(JOB) == "4711"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sbatch: error: invalid partition specified: nowhere", Refused),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", Refused),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", Refused),
        ("sbatch: error: Memory specification can not be satisfied", Refused),
        ("sbatch: error: Batch job submission failed: Invalid generic resource (gres) specification", Refused),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
         Refused),
        ("sbatch: unrecognized option '--frobnicate'", Refused),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates"
         " accounting/QOS policy (job submit limit, user's size and/or time limits)", Full),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", Full),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Unsure),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", Unsure),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", Unsure),
        ("sbatch: error: If munged is up, restart with --num-threads=10", Unsure),
        ("", Unsure),
    ],
)  # fmt: skip
def test_what_a_failed_hand_over_means(commands: Path, said: str, kind: type[Exception]) -> None:
    says(commands, "sbatch", err=f"{said}\n", code=1)
    with pytest.raises(kind) as raised:
        Slurm(cluster()).submit(JOB)
    assert "sbatch:" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_success_without_a_number_is_unsure(commands: Path) -> None:
    says(commands, "sbatch", "queued, thank you\n")
    with pytest.raises(Unsure):
        Slurm(cluster()).submit(JOB)


def test_jobs_are_known_by_their_token_whatever_their_reasons_hold(commands: Path) -> None:
    other = "fedcba9876543210"
    says(
        commands,
        "squeue",
        f"{HEAD}1|RUNNING|{TOKEN}|n1|None\n2|PENDING|{other}||Nodes required | are DOWN\n3|RUNNING|(null)|n2|None\n",
    )
    snapshot = Slurm(cluster()).snapshot()
    assert snapshot is not None
    assert {token: (seen.job, seen.phase) for token, seen in snapshot.jobs.items()} == {
        TOKEN: ("1", Phase.LIVES),
        other: ("2", Phase.WAITS),
    }
    assert snapshot.jobs[other].words == "Nodes required | are DOWN"


def test_a_state_that_is_not_known_says_nothing(commands: Path) -> None:
    says(commands, "squeue", f"{HEAD}1|QUANTUM|{TOKEN}|n1|None\n")
    snapshot = Slurm(cluster()).snapshot()
    assert snapshot is not None
    assert snapshot.jobs[TOKEN].phase is Phase.UNKNOWN


@pytest.mark.parametrize(
    ("out", "code"),
    [
        ("", 0),
        ("", 1),
        (f"{HEAD}1|RUNNING|{TOKEN}|n1|None\n", 1),
        (f"{HEAD}1|RUNNING|{TOKEN}", 0),
        (f"{HEAD}1|RUNNING\n", 0),
        (f"1|RUNNING|{TOKEN}\n", 0),
        ("slurm_load_jobs error: Unable to contact slurm controller\n", 0),
    ],
)
def test_what_is_no_whole_answer_is_none(commands: Path, out: str, code: int) -> None:
    says(commands, "squeue", out, code=code)
    assert Slurm(cluster()).snapshot() is None


def test_ten_thousand_jobs_are_read(commands: Path) -> None:
    lines = "".join(f"{number}|PENDING|{number:016x}||Priority\n" for number in range(10_000))
    says(commands, "squeue", HEAD + lines)
    snapshot = Slurm(cluster()).snapshot()
    assert snapshot is not None
    assert len(snapshot.jobs) == 10_000


def test_nothing_is_cancelled_without_a_number(commands: Path) -> None:
    says(commands, "scancel")
    Slurm(cluster()).cancel([])
    Slurm(cluster()).cancel(["", "-u", "--me"])
    assert not (commands / "scancel.words").exists()
    Slurm(cluster()).cancel(["12", "13"])
    assert (commands / "scancel.words").read_text() == "12\n13\n"


def test_what_a_job_asks_for(commands: Path) -> None:
    says(commands, "sbatch", "1\n")
    job = ClusterJob(
        JOB.name, TOKEN, JOB.folder, JOB.command, 13, 45, gpus=2, gpu_type="a100", cpus=16, mem_mib=65536,
        options=("--partition=gpu",),
    )  # fmt: skip
    Slurm(cluster()).submit(job)
    words = (commands / "sbatch.words").read_text().splitlines()
    assert words[-4:] == ["--gres=gpu:a100:2", "--cpus-per-task=16", "--mem=65536M", "--partition=gpu"]
    assert {"--no-requeue", f"--comment={TOKEN}", "--time=13", "--signal=B:USR2@45", "--chdir=/"} <= set(
        words
    )
    assert "--gpus-per-node=2" in Slurm(cluster(gpu_option="gpus")).words(ClusterJob(
        JOB.name, TOKEN, JOB.folder, JOB.command, 13, 45, gpus=2
    ))  # fmt: skip
    assert "--signal=USR2@45" in Slurm(cluster(as_step=True)).words(JOB), "a step is told itself"


def test_commands_get_no_environment_of_ours(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    path = commands / "sbatch"
    path.write_text(f"#!/bin/sh\nenv > {commands}/seen\necho 7\n")
    path.chmod(0o755)
    assert Slurm(cluster()).submit(JOB) == "7"
    assert "SECRET_TOKEN" not in (commands / "seen").read_text()
