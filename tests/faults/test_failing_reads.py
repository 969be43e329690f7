"""An error of reading one of our files is not its absence: nothing is lost by it, fails by it or runs again."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import promises
from tests.support.fake_gpus import impatient
from tests.support.fakes.faulty_reads import Fault, build_library
from tests.support.harness import SCRIPTS, Bench, wait_until
from tests.support.variants import some

ERRORS = (
    errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ENOSPC, errno.ESTALE, errno.ENOTCONN, errno.EACCES
)  # fmt: skip
QUICK = ("scheduler.outcome.failures.BACKOFF_BASE_S=0.2", "worker.loop.TICK_LIVE_S=0.1")
LEDGER = (str(SCRIPTS / "ledger.py"), "--", "--steps", "4", "--first", "2")
"""A chain of two segments that keeps books."""

CHAIN = tuple(
    Fault(who, file, call, number, nth)
    for number in ERRORS
    for who, file, nth in (
        ("worker", "exit.json", 1),
        ("worker", "exit.json", 2),
        ("worker", "spec.json", 1),
        ("worker", "order.json", 1),
        ("supervisor", "spec.json", 1),
        ("supervisor", "order.json", 1),
        ("supervisor", "stop.json", 1),
    )
    for call in ("open", "read", "stat")
)
RECOVERY = tuple(
    Fault(who, file, call, number, nth)
    for number in ERRORS
    for who in ("worker", "doctor")
    for file in ("spec.json", "order.json", "exit.json", "outcome.json")
    for nth in (1, 2)
    for call in ("open", "read", "stat")
)
SAMPLE = (
    Fault("worker", "exit.json", "open", errno.EMFILE),
    Fault("worker", "exit.json", "open", errno.EIO, 2),
    Fault("worker", "exit.json", "read", errno.EIO),
    Fault("worker", "spec.json", "open", errno.ENFILE),
    Fault("worker", "order.json", "open", errno.EACCES),
    Fault("supervisor", "spec.json", "open", errno.EIO),
    Fault("supervisor", "order.json", "read", errno.ESTALE),
)
RECOVERY_SAMPLE = (
    Fault("worker", "spec.json", "open", errno.ENFILE),
    Fault("worker", "outcome.json", "open", errno.EIO),
    Fault("worker", "exit.json", "open", errno.ENOMEM),
    Fault("doctor", "order.json", "read", errno.EIO),
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("failing"))


def nothing_repeated(bench: Bench, run: str) -> None:
    """Each segment began once, the second one ended it, and neither was lost or failed."""
    assert bench.state(run) == "completed", bench.show(run)
    book = promises.read_book(bench.project, run)
    assert book.faults == []
    assert len(book.starts) == 2, book.starts
    # A supervisor in reserve ends when it sees that its worker has, a moment later.
    wait_until(lambda: not bench.left(), timeout_s=10, saw=bench.left)
    assert promises.faults(bench.home, bench.project) == []
    assert {one["outcome"] for one in bench.show(run)["segments"]} <= {
        "tempfail", "completed", "recovered", "not started"
    }  # fmt: skip


def play_chain(bench: Bench, library: Path, fault: Fault) -> bool:
    """Run a chain while one look fails; return whether it did."""
    mark = bench.home.parent / "struck"
    run = bench.queue(*LEDGER)
    env = fault.environment(library, mark)
    assert bench.worker("--drain", command=impatient(*QUICK), env=env).wait(timeout=60) == 0
    nothing_repeated(bench, run)
    return mark.exists()


def play_recovery(bench: Bench, library: Path, fault: Fault) -> bool:
    """Lose the database after a chain, and let one look fail while it is put together again."""
    mark = bench.home.parent / "struck"
    run = bench.queue(*LEDGER)
    assert bench.worker("--drain").wait(timeout=60) == 0
    for path in bench.home.glob("backprop.db*"):
        path.unlink()
    env = fault.environment(library, mark)
    if fault.who == "doctor":
        bench.backprop("doctor", "--repair", env=env)
        env = {}
    assert bench.worker("--drain", env=env).wait(timeout=60) == 0
    nothing_repeated(bench, run)
    return mark.exists()


@pytest.mark.parametrize("fault", some(SAMPLE, 2), ids=str)
def test_one_failed_look_at_a_file_of_ours_costs_nothing(bench: Bench, library: Path, fault: Fault) -> None:
    assert play_chain(bench, library, fault), "it did not come to pass"


@pytest.mark.parametrize("fault", some(RECOVERY_SAMPLE, 2), ids=str)
def test_one_failed_look_of_a_repair_costs_nothing(bench: Bench, library: Path, fault: Fault) -> None:
    assert play_recovery(bench, library, fault), "it did not come to pass"


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("faults", (CHAIN, RECOVERY), ids=("chain", "recovery"))
def test_any_failed_look_costs_nothing(
    tmp_path: Path, library: Path, faults: tuple[Fault, ...], number: int
) -> None:
    """Every process, file, call and error there is. Some looks are not made in every version of Python."""
    came, wrong = 0, []
    mine = [one for one in faults if one.number == number]
    for at, fault in enumerate(mine):
        bench = Bench(tmp_path / str(at))
        try:
            came += (play_chain if faults is CHAIN else play_recovery)(bench, library, fault)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            said = "".join(bench.output(worker) for worker in range(len(bench.workers)))
            wrong.append(f"{fault}: {error}\n{said}")
        finally:
            bench.close()
    print(f"{came} of {len(mine)} came to pass")
    assert wrong == []
    assert came


@pytest.mark.parametrize("words", [("list",), ("resume", "no-such-run")], ids=" ".join)
def test_a_command_that_cannot_look_at_its_home_says_so_in_one_line(
    bench: Bench, library: Path, words: tuple[str, ...]
) -> None:
    bench.queue("true")
    mark = bench.home.parent / "struck"
    fault = Fault("command", "backprop.db", "stat", errno.ENOMEM)
    done = bench.backprop(*words, env=fault.environment(library, mark))
    assert mark.exists()
    assert "Cannot allocate memory" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.returncode > 1


ENDS = """
    import os, time
    with open("starts", "a") as file:
        file.write(os.environ["BACKPROP_SEGMENT"] + "\\n")
    print("up", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.02)
"""


def started(bench: Bench) -> list[str]:
    return (bench.project / "starts").read_text().split()


def test_an_end_that_stays_unreadable_frees_the_slot_and_is_held(bench: Bench, library: Path) -> None:
    """Nothing of it lives and perhaps it has finished: it neither runs again nor keeps others from running."""
    bench.script("once.py", ENDS)
    run = bench.queue("once.py")
    later = bench.queue("-n", "later", "once.py")
    env = Fault("worker", "exit.json", "open", errno.EIO, 0).environment(
        library, bench.home.parent / "struck"
    )
    command = impatient(*QUICK, "worker.segments.patience.PATIENCE_S=1.5")
    bench.worker("--max-parallel", "1", command=command, env=env)
    bench.wait_for_log(run, "up")
    (bench.project / "go").touch()
    bench.exit_record(run)
    (bench.project / "go").unlink()
    wait_until(lambda: "EndUnreadable: [Errno 5]" in bench.output(), saw=bench.output)
    assert bench.state(run) == "running", "it is looked at again for a while"
    bench.wait_for(run, "held")
    reason = str(bench.column(run, "reason"))
    assert "/exit.json (Input/output error, errno 5)" in reason, reason
    bench.wait_for_log(later, "up")
    assert started(bench) == ["1", "1"]
    (bench.project / "go").touch()
    wait_until(lambda: bench.state(later) != "running")


def test_a_run_that_was_stopped_is_stopped_though_its_end_stays_unreadable(
    bench: Bench, library: Path
) -> None:
    bench.script("once.py", ENDS)
    run = bench.queue("once.py", "--grace-seconds", "1")
    env = Fault("worker", "exit.json", "read", errno.EIO, 0).environment(
        library, bench.home.parent / "struck"
    )
    bench.worker(command=impatient(*QUICK, "worker.segments.patience.PATIENCE_S=1"), env=env)
    bench.wait_for_log(run, "up")
    assert bench.backprop("stop", run).returncode == 0
    bench.wait_for(run, "stopped")
    assert started(bench) == ["1"]


def _link_back(log: Path) -> None:
    moved = log.with_name("moved")
    log.rename(moved)
    log.symlink_to(moved)


def _folder(log: Path) -> None:
    log.unlink()
    log.mkdir()


def _fifo(log: Path) -> None:
    log.unlink()
    os.mkfifo(log)


def _dangling(log: Path) -> None:
    log.unlink()
    log.symlink_to("nowhere")


IN_ITS_PLACE = (_link_back, _folder, _fifo, _dangling)


@pytest.mark.parametrize("replace", some(IN_ITS_PLACE, 2), ids=lambda replace: replace.__name__)
def test_what_has_become_of_its_log_does_not_keep_a_run_that_has_ended(bench: Bench, replace: object) -> None:
    """Under the worker that saw it start, and under the next one."""
    assert callable(replace)
    bench.script("once.py", ENDS)
    runs = [bench.queue("-n", name, "once.py") for name in ("seen", "taken-over")]
    first = bench.worker()
    for run in runs:
        bench.wait_for_log(run, "up")
    replace(bench.folder(runs[0]) / "log")
    first.kill()
    first.wait()
    replace(bench.folder(runs[1]) / "log")
    bench.worker()
    wait_until(lambda: bench.output(1).count("adopted") == len(runs), saw=lambda: bench.output(1))
    assert [bench.state(run) for run in runs] == ["running", "running"]
    (bench.project / "go").touch()
    for run in runs:
        bench.wait_for(run, "completed")
        assert json.loads((bench.folder(run) / "exit.json").read_text())["exit_code"] == 0
    assert started(bench) == ["1", "1"]


@pytest.mark.parametrize("replace", some(IN_ITS_PLACE, 2), ids=lambda replace: replace.__name__)
def test_a_replaced_log_and_run_lock_hide_no_end_from_the_worker(bench: Bench, replace: object) -> None:
    assert callable(replace)
    bench.script("once.py", ENDS)
    run = bench.queue("once.py")
    bench.worker()
    bench.wait_for_log(run, "up")
    replace(bench.folder(run) / "log")
    replace(bench.folder(run).parent / "run.lock")
    (bench.project / "go").touch()
    bench.wait_for(run, "completed")
    assert started(bench) == ["1"]
