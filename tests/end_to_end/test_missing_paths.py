"""Directories, programs, scripts and checkpoints that are not there: their runs wait, and go on once they are back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.fake_gpus import impatient
from tests.support.harness import QUIET_LIMITS, SCRIPTS, Bench, wait_until

TRAINER = str(SCRIPTS / "trainer.py")


def rules(bench: Bench, run: str) -> list[dict[str, object]]:
    return json.loads(bench.backprop("why", run, "--json").stdout)["rules"]


def waits_for(bench: Bench, run: str, path: Path) -> None:
    """Wait until `run` waits for `path`, by a rule that programs can read."""

    def waits() -> bool:
        return [(rule["rule"], rule["path"]) for rule in rules(bench, run)] == [("missing path", str(path))]

    wait_until(waits, saw=lambda: bench.show(run))
    shown = bench.show(run)
    assert shown["state"] == "queued"
    assert f"{path} is not there" in shown["reason"]
    assert len(shown["reason"].partition(":")[0]) <= 24


def nothing_is_counted(bench: Bench, run: str) -> None:
    assert [bench.column(run, name) for name in ("segment", "lost", "retries_used")] == [0, 0, 0]


def away(path: Path) -> Path:
    """Take a folder or file away, as an unmount does; return where it is."""
    return path.rename(path.with_name(f"{path.name}.away"))


@pytest.fixture
def elsewhere(bench: Bench) -> Path:
    """A folder beside the project that runs can be queued from."""
    folder = bench.project.parent / "disk" / "proj"
    folder.mkdir(parents=True)
    (folder / "quick.py").write_text("print('hello')\n")
    return folder


def queue_in(bench: Bench, folder: Path, *words: str) -> str:
    done = bench.backprop("run", "-q", *QUIET_LIMITS, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hundred_runs_of_a_missing_directory_wait_and_the_others_start(
    bench: Bench, elsewhere: Path
) -> None:
    bench.script("quick.py", "print('hello')")
    done = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--array", "0-99", "--group", "many", "--", "/bin/true", cwd=elsewhere
    )
    assert done.returncode == 0, done.stderr
    other = bench.queue("quick.py")
    hidden = away(elsewhere.parent)
    bench.worker("--max-parallel", "8")
    bench.wait_for(other, "completed", timeout_s=20)
    first = bench.runs()[-1]["id"]
    waits_for(bench, first, elsewhere.parent)
    assert {run["state"] for run in bench.runs() if run["id"] != other} == {"queued"}
    assert f"{elsewhere.parent} is not there" in bench.backprop("worker", "--dry-run").stdout
    hidden.rename(elsewhere.parent)
    wait_until(lambda: bench.states()["completed"] > 20, saw=bench.output)  # the rest would say nothing more
    assert {run["segment_count"] for run in bench.runs() if run["state"] == "completed"} == {1}


def test_an_environment_that_is_rebuilt_under_queued_runs(bench: Bench) -> None:
    """Its python goes, comes back half made, and is there again."""
    venv = bench.project / "env" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    (venv / "tool").write_text(f"#!{venv / 'python'}\nprint('hello')\n")
    (venv / "tool").chmod(0o755)
    bench.script("quick.py", "print('hello')")
    by_python = bench.queue("--python", str(venv / "python"), "quick.py")
    by_tool = bench.queue("--", str(venv / "tool"))
    hidden = away(venv.parent)
    bench.worker("--max-parallel", "4")
    for run in (by_python, by_tool):
        waits_for(bench, run, venv.parent)
        nothing_is_counted(bench, run)
    venv.mkdir(parents=True)
    shutil.copy(hidden / "bin" / "tool", venv / "tool")
    waits_for(bench, by_tool, venv / "python")
    nothing_is_counted(bench, by_tool)
    (venv / "python").symlink_to(sys.executable)
    began = time.monotonic()
    for run in (by_python, by_tool):
        assert bench.wait_for(run, "completed", timeout_s=20)["segment_count"] == 1
    assert time.monotonic() - began < 10


def test_a_missing_script_is_waited_for(bench: Bench) -> None:
    script = bench.script("quick.py", "print('hello')")
    run = bench.queue("quick.py")
    hidden = away(script)
    bench.worker()
    waits_for(bench, run, script)
    hidden.rename(script)
    assert bench.wait_for(run, "completed")["segment_count"] == 1


def lose_everything(bench: Bench, worker: subprocess.Popen[str]) -> None:
    """End all processes of the home at once, as a power cut does."""
    for pid in (worker.pid, *bench.left()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    worker.wait()
    wait_until(lambda: not bench.left())


def starts(folder: Path) -> list[int]:
    """The step that each segment began at."""
    return [int(line.split()[1]) for line in (folder / "starts").read_text().splitlines()]


def newest(folder: Path) -> int:
    return max((int(path.name.removeprefix("ckpt-")) for path in folder.glob("ckpt-*")), default=0)


def test_a_directory_that_is_not_mounted_after_a_reboot_costs_no_step(bench: Bench, elsewhere: Path) -> None:
    """The new worker reads what was announced last while the directory is away."""
    run = queue_in(bench, elsewhere, TRAINER, "--", "--steps", "250", "--save-every", "5", "--pace", "0.02")
    worker = bench.worker()
    wait_until(lambda: newest(elsewhere) >= 10)
    worker.kill()
    read = newest(elsewhere)
    wait_until(lambda: newest(elsewhere) >= read + 20)
    lose_everything(bench, worker)
    saved, hidden = newest(elsewhere), away(elsewhere.parent)
    bench.worker()
    waits_for(bench, run, elsewhere.parent)
    hidden.rename(elsewhere.parent)
    seen = bench.wait_for(run, "completed")
    assert len(seen["segments"]) == 2
    begun = starts(elsewhere)
    assert begun[0] == 0
    assert saved <= begun[1] <= newest(elsewhere)


def test_checkpoints_on_a_disk_that_is_away_are_waited_for(bench: Bench, elsewhere: Path) -> None:
    """An older one lies on a disk that is there."""
    bench.script(
        "train.py",
        """
        import json, os, sys, time
        at = int(open(os.environ["BACKPROP_RESUME_FROM"]).read()) if "BACKPROP_RESUME_FROM" in os.environ else 0
        print("from", at, flush=True)
        for step, folder in ((at + 1, "near"), (at + 2, sys.argv[1])):
            os.makedirs(folder, exist_ok=True)
            path = f"{folder}/{step}.pt"
            open(path, "w").write(str(step))
            print(json.dumps({"event": "checkpoint_saved", "path": path, "step": step}), flush=True)
        sys.exit(0 if at else 75)
        """,
    )
    run = bench.queue("train.py", "--", str(elsewhere / "saved"))
    worker = bench.worker()
    # The first segment asks to be run again at once, so the disk goes while its worker is away.
    bench.wait_for_log(run, "checkpoint_saved")
    bench.wait_for(run, "completed")
    bench.end_worker(worker)
    assert "from 2" in bench.log(run, 2)
    hidden = away(elsewhere)
    assert bench.backprop("resume", run).returncode == 0
    bench.worker()
    waits_for(bench, run, elsewhere)
    hidden.rename(elsewhere)
    bench.wait_for(run, "completed")
    assert "from 4" in bench.log(run, 3)


def test_a_path_that_goes_between_the_look_and_the_start_is_no_failure(bench: Bench, elsewhere: Path) -> None:
    first = queue_in(bench, elsewhere, "quick.py")
    run = queue_in(bench, elsewhere, "quick.py", "--hold")
    script = bench.script("other.py", "print('hello')")
    waiting = bench.queue("other.py")
    away(script)  # so that the queue is never empty: then a worker forgets what it has seen
    late = impatient("worker.admission.missing_paths.LOOK_AGAIN_S=6.0")
    bench.worker(command=late)
    bench.wait_for(first, "completed")
    hidden = away(elsewhere)
    bench.backprop("release", run)
    waits_for(bench, run, elsewhere)
    segments = bench.show(run)["segments"]
    assert {segment["outcome"] for segment in segments} == {"not started"}
    assert str(elsewhere) in segments[0]["reason"]
    assert [bench.column(run, name) for name in ("lost", "retries_used", "stalled")] == [0, 0, 0]
    hidden.rename(elsewhere)
    bench.wait_for(run, "completed")
    assert bench.state(waiting) == "queued"


def test_a_program_that_may_not_be_executed_is_the_runs_own_fault(bench: Bench) -> None:
    tool = bench.script("tool", "#!/bin/sh\necho hello\n")
    tool.chmod(0o755)
    run = bench.queue("--", "./tool")
    tool.chmod(0o644)
    bench.worker()
    assert "Permission denied" in bench.wait_for(run, "failed")["reason"]


def test_a_program_that_is_there_and_is_not_found_fails_in_the_end(bench: Bench) -> None:
    """Its loader is missing: the kernel says "no such file" each time, and nobody can put it back."""
    tool = bench.project / "tool"
    body = Path("/bin/true").read_bytes()
    at = body.index(b"/ld-linux")
    tool.write_bytes(body[:at] + b"/no-linux" + body[at + 9 :])
    tool.chmod(0o755)
    run = bench.queue("--", "./tool")
    bench.worker(command=impatient("scheduler.outcome.failures.LOOK_AGAIN_S=0.1"))
    seen = bench.wait_for(run, "failed")
    assert [one["outcome"] for one in seen["segments"]] == ["not started"] * 2
    assert "No such file" in seen["reason"]


def held_for_files(bench: Bench) -> tuple[str, Path]:
    """Have a run held whose checkpoint is gone alone; return the run and where the checkpoint is now."""
    bench.script("train.py", SAVES_ONE)
    run = bench.queue("train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    hidden = away(bench.project / "1.pt")
    bench.backprop("resume", run)
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "held"
    return run, hidden


SAVES_ONE = """
    import json, os, sys
    print("from", os.environ.get("BACKPROP_RESUME_FROM"), flush=True)
    number = os.environ["BACKPROP_SEGMENT"]
    open(f"{number}.pt", "w").write(number)
    print(json.dumps({"event": "checkpoint_saved", "path": f"{number}.pt", "step": int(number)}), flush=True)
    sys.exit(int(number == "1"))
"""
LOOKS_OFTEN = ("worker.loop.RECONCILE_EVERY_S=0.5",)


def test_a_run_held_for_its_files_is_released_once_they_are_back(bench: Bench) -> None:
    run, hidden = held_for_files(bench)
    bench.worker(command=impatient(*LOOKS_OFTEN))
    other = bench.queue("--", "/bin/true")
    bench.wait_for(other, "completed")
    assert bench.state(run) == "held"
    hidden.rename(bench.project / "1.pt")
    bench.wait_for(run, "completed", timeout_s=20)
    assert f"from {bench.project / '1.pt'}" in bench.log(run, 2)
    assert "its files are back" in bench.output(2)


def test_what_its_user_holds_stays_held(bench: Bench) -> None:
    """Whether it was queued, waited for a path, or was held for its files until its user held it as well."""
    run, hidden = held_for_files(bench)
    plain = bench.queue("train.py", "--hold")
    assert bench.backprop("hold", run).returncode == 0
    refused = bench.backprop("hold", plain)
    assert (refused.returncode, "only a queued run can be held" in refused.stderr) == (10, True)
    hidden.rename(bench.project / "1.pt")
    bench.worker(command=impatient(*LOOKS_OFTEN))
    other = bench.queue("--", "/bin/sleep", "1.5")
    bench.wait_for(other, "completed")
    assert [bench.state(run), bench.state(plain)] == ["held", "held"]
    assert bench.show(run)["reason"] == "held by the user"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of its own."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    if os.geteuid() != 0 or not mount(folder):
        pytest.skip("only root may mount, and not in every container")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def mount(folder: Path, *words: str) -> bool:
    command: Sequence[str] = ("mount", *(words or ("-t", "tmpfs", "none")), str(folder))
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_disk_that_is_not_mounted_is_no_loss_of_its_checkpoints(
    bench: Bench, disk: Path, tmp_path: Path
) -> None:
    """They lie in the mount point itself, which is an empty folder then, beside an older one that is there."""
    bench.script(
        "train.py",
        SAVES_ONE.replace("number}.pt", "folder}/{number}.pt").replace(
            "    open(", "    folder = sys.argv[1]\n    open(", 1
        ),
    )
    run = bench.queue("train.py", "--", str(disk))
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert (disk / "1.pt").exists()
    moved = tmp_path / "moved"
    moved.mkdir()
    assert mount(moved, "--bind", str(disk))
    subprocess.run(["umount", str(disk)], check=True)
    try:
        bench.backprop("resume", run)
        bench.worker()
        wait_until(lambda: f"{disk} is not mounted" in bench.show(run)["reason"], saw=lambda: bench.show(run))
        assert bench.state(run) == "queued"
        assert mount(disk, "--bind", str(moved))
        bench.wait_for(run, "completed", timeout_s=20)
    finally:
        subprocess.run(["umount", "-l", str(moved)], check=False, capture_output=True)
    assert f"from {disk}/1.pt" in bench.log(run, 2)
