"""A start that fails for a reason of the machine costs no run anything: the queue waits and says so until it heals."""

import errno
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from backprop.worker.executor.supervisor_program import SUPERVISOR
from tests.support import promises
from tests.support.fake_gpus import impatient
from tests.support.fakes.faulty_reads import SOURCE, build_library
from tests.support.harness import PROGRAMS, QUIET_LIMITS, Bench, wait_until, without_roots_rights
from tests.support.variants import some

SAYS = "host cannot start runs"
QUICK = (
    "scheduler.outcome.failures.BACKOFF_BASE_S=0.05", "worker.loop.TICK_IDLE_S=0.2",
    "worker.executor.breaker.PAUSE_S=0.1", "worker.executor.breaker.LONGEST_PAUSE_S=0.4",
)  # fmt: skip
CHAIN = """
    import json, os, sys
    path = os.environ["BACKPROP_RUN_ID"]
    again = os.path.exists(path)
    with open(path, "a") as file:
        file.write("begun\\n")
    print(json.dumps({"event": "checkpoint_saved", "path": path, "step": 1 + again}), flush=True)
    sys.exit(0 if again else 75)
"""
"""Two segments; the second one completes it."""


class Installation:
    """An interpreter and a copy of the supervisor's files that can be taken away under a worker."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "venv" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.symlink_to(sys.executable)
        self.supervisor = folder / "supervisor"
        shutil.copytree(SUPERVISOR, self.supervisor)

    @property
    def command(self) -> tuple[str, ...]:
        program = str(PROGRAMS / "other_installation.py")
        return (sys.executable, program, str(self.python), str(self.supervisor))


def without_python(there: Installation) -> Path:
    return there.python.rename(there.python.with_name("away"))


def without_files(there: Installation) -> Path:
    return there.supervisor.rename(there.supervisor.with_name("away"))


def with_half_a_library(there: Installation) -> Path:
    """As while an upgrade replaces its files: the interpreter starts, and ends at once."""
    away = without_python(there)
    there.python.write_text("#!/bin/sh\nexit 1\n")
    there.python.chmod(0o755)
    return away


def put_back(away: Path, there: Installation) -> None:
    where = there.python if away.parent == there.python.parent else there.supervisor
    where.unlink(missing_ok=True)
    away.rename(where)


def queue_many(bench: Bench, count: int) -> list[str]:
    bench.script("note.sh", "#!/bin/sh\necho $1 >> starts\n").chmod(0o755)
    lines = [f"./note.sh -- {number}\n" for number in range(count)]
    batch = bench.script("batch.txt", "".join(lines))
    limits = ("--min-free-ram", "0", "--max-cpu-load", "1000", "--gpu-probe", "none")
    done = bench.backprop("run", "-q", *limits, "--batch", str(batch))
    assert done.returncode == 0, done.stderr
    return [run["id"] for run in bench.runs()]


def count_states(bench: Bench) -> Counter[str]:
    return Counter(row["state"] for row in promises.rows(bench.home, "runs"))


def assert_said(bench: Bench, run: str, *texts: str) -> None:
    """`list`, `why`, `status` and `doctor` say that nothing is started, and why."""
    told = json.loads(bench.backprop("why", run, "--json").stdout)
    assert [rule["rule"] for rule in told["rules"]] == ["host"], told
    status = json.loads(bench.backprop("status", "--json").stdout)
    for said in (told["reason"], bench.backprop("why", run).stdout, status["closed"]):
        assert all(text in said for text in (SAYS, *texts)), said
    doctor = bench.backprop("doctor")
    assert doctor.returncode == 24, doctor.stdout
    assert SAYS in doctor.stdout


@pytest.mark.parametrize(
    ("take_away", "said", "count"),
    [
        (without_python, "/venv/python: No such file or directory", 20),
        pytest.param(without_python, "/venv/python: No such file or directory", 100, marks=pytest.mark.long),
        (without_files, "/supervisor/__main__.py is gone", 20),
        (with_half_a_library, "a supervisor ended at its start (exit code 1)", 20),
    ],
)
def test_a_queue_survives_the_loss_of_the_installation(
    bench: Bench, tmp_path: Path, take_away: object, said: str, count: int
) -> None:
    assert callable(take_away)
    there = Installation(tmp_path / "there")
    runs = queue_many(bench, count)
    away = take_away(there)
    bench.worker("--drain", "-p", "4", command=there.command)
    wait_until(lambda: SAYS in bench.output(), saw=bench.output)
    wait_until(lambda: bench.column(runs[-1], "waiting"), saw=bench.output)
    assert_said(bench, runs[-1], said)
    assert count_states(bench) == {"queued": count}
    assert promises.rows(bench.home, "segments") == [], "no segment was spent"
    put_back(away, there)
    assert bench.workers[0].wait(timeout=120) == 0, bench.output()
    assert count_states(bench) == {"completed": count}
    assert Counter(row["outcome"] for row in promises.rows(bench.home, "segments")) == {"completed": count}
    assert sorted(map(int, (bench.project / "starts").read_text().split())) == list(range(count))
    assert bench.output().count(SAYS) == bench.output().count("starting runs again") == 1, bench.output()


def test_a_worker_that_loses_its_installation_goes_on_with_what_it_has(bench: Bench, tmp_path: Path) -> None:
    """Its running segment ends well, and the supervisor that has done so takes the next run."""
    there = Installation(tmp_path / "there")
    bench.script("first.sh", "echo up; while [ ! -e go ]; do sleep 0.05; done\n")
    first = bench.queue("--", "sh", "first.sh")
    bench.worker("-p", "1", command=there.command)
    bench.wait_for_log(first, "up")
    without_python(there)
    without_files(there)
    second, third = (bench.queue("--", "true") for _ in range(2))
    (bench.project / "go").touch()
    for run in (first, second, third):
        bench.wait_for(run, "completed")
    assert SAYS not in bench.output()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("starts"), SOURCE.with_name("failing_starts.c"))


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_a_worker_that_gets_no_process_claims_nothing(bench: Bench, library: Path, number: int) -> None:
    short = bench.project / "short"
    short.touch()
    env = failing(library, " worker ", number, short)
    runs = queue_many(bench, 5)
    bench.worker("--drain", "-p", "2", command=impatient(*QUICK), env=env)
    wait_until(lambda: SAYS in bench.output(), saw=bench.output)
    wait_until(lambda: bench.column(runs[0], "waiting"), saw=bench.output)
    assert count_states(bench) == {"queued": 5}
    short.unlink()
    assert bench.workers[0].wait(timeout=60) == 0
    assert [row["outcome"] for row in promises.rows(bench.home, "segments")] == ["completed"] * 5


@pytest.mark.parametrize("number", some([errno.EAGAIN, errno.EMFILE, errno.EIO], 3), ids=errno.errorcode.get)
def test_a_command_that_gets_no_process_is_tried_until_it_does(
    bench: Bench, library: Path, number: int
) -> None:
    """After the claim, again and again: it counts neither as lost nor as a retry nor as one of its segments."""
    short = bench.project / "short"
    short.touch()
    env = failing(library, "worker/supervisor", number, short)
    bench.script("chain.py", CHAIN)
    runs = [bench.queue("chain.py", "--max-segments", "2") for _ in range(3)]
    bench.worker("--drain", "-p", "2", command=impatient(*QUICK), env=env)
    wait_until(lambda: len(refused(bench)) >= 6, saw=bench.output)
    assert set(count_states(bench)) <= {"queued", "running"}
    assert SAYS in bench.output()
    short.unlink()
    assert bench.workers[0].wait(timeout=60) == 0
    for run in runs:
        assert bench.state(run) == "completed", bench.show(run)
        assert (bench.column(run, "lost"), bench.column(run, "retries_used")) == (0, 0)
        assert (bench.project / run).read_text().split() == ["begun", "begun"]


def test_a_worker_whose_own_files_are_replaced_lives_on_and_says_so(bench: Bench, tmp_path: Path) -> None:
    """What it has not imported by then it cannot import: it is in trouble, and no run is lost or fails by it."""
    there = Installation(tmp_path / "there")
    bench.script("first.sh", "echo up; while [ ! -e go ]; do sleep 0.05; done\n")
    first = bench.queue("--", "sh", "first.sh")
    env = {"IMPORTS_FAIL_WHILE": str(bench.project / "gone")}
    worker = bench.worker("-p", "2", command=there.command, env=env)
    bench.wait_for_log(first, "up")
    (there.supervisor / "standby.py").write_text("raise SystemExit(2)  # of another version\n")
    (bench.project / "gone").touch()
    second = bench.queue("--", "true")
    (bench.project / "go").touch()
    wait_until(lambda: "its program was replaced: restart the worker" in bench.output(), saw=bench.output)
    assert worker.poll() is None
    (bench.project / "gone").unlink()
    bench.wait_for(first, "completed")
    bench.wait_for(second, "completed", "queued")
    bench.end_worker(worker)
    bench.worker()
    for run in (first, second):
        bench.wait_for(run, "completed")
        assert bench.column(run, "lost") == 0


def failing(library: Path, who: str, number: int, short: Path) -> dict[str, str]:
    """Return the variables that let a process start nothing while the file `short` is there."""
    return {
        "LD_PRELOAD": str(library),
        "START_WHO": who,
        "START_ERRNO": str(number),
        "START_WHILE": str(short),
    }


@pytest.fixture(name="no_threads")
def built_without_threads(tmp_path: Path) -> dict[str, str]:
    library = build_library(tmp_path, SOURCE.with_name("no_threads.c"))
    return {"LD_PRELOAD": str(library)}


def test_where_no_thread_is_to_be_had_runs_go_on_and_nothing_ends_in_a_traceback(
    bench: Bench, no_threads: dict[str, str]
) -> None:
    bench.script("train.py", CHAIN)
    followed = bench.backprop("run", "--follow", *QUIET_LIMITS, "train.py", env=no_threads)
    assert followed.returncode == 0, followed.stderr
    assert followed.stdout.count("checkpoint_saved") == 2
    assert followed.stderr.count("Traceback") == 0
    runs = [bench.queue("train.py") for _ in range(2)]
    worker = bench.worker("--drain", env=no_threads)
    assert worker.wait(timeout=60) == 0, bench.output()
    assert [bench.state(run) for run in runs] == ["completed", "completed"], bench.output()
    assert "Traceback" not in bench.output()


def test_a_run_folder_that_may_not_be_used_just_now_is_waited_for(bench: Bench) -> None:
    run = bench.queue("--", "true")
    folder = bench.home / "runs" / run
    folder.chmod(0o500)
    worker = bench.worker("--drain", command=(*without_roots_rights(), *impatient(*QUICK)))
    said = f"waiting: its folder {folder} cannot be used: Permission denied"
    wait_until(lambda: bench.column(run, "reason") == said, saw=lambda: bench.column(run, "reason"))
    folder.chmod(0o700)
    assert worker.wait(timeout=60) == 0, bench.output()
    assert bench.state(run) == "completed"


def refused(bench: Bench) -> list[int]:
    """Return the numbers of the segments that were not started."""
    return [row["number"] for row in promises.rows(bench.home, "segments") if row["outcome"] == "not started"]


def test_a_supervisor_that_dies_before_its_command_begins_is_no_lost_segment(bench: Bench) -> None:
    run = bench.queue("--", "true")
    env = {"BACKPROP_FAILPOINT": "starting:kill"}
    first = bench.worker("--drain", command=impatient(*QUICK), env=env)
    wait_until(lambda: len(refused(bench)) >= 5, saw=bench.output)
    assert bench.state(run) in ("queued", "running")
    assert bench.column(run, "lost") == 0
    first.kill()
    first.wait()
    bench.worker("--drain")
    bench.wait_for(run, "completed")
