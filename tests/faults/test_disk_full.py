"""No room on the disk: nothing is corrupt, what only reads goes on, and all resumes by itself once there is room.

`test_database` holds what a full disk does to one transaction, the sweeps what one failed write does anywhere.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backprop.worker.supervisor import files
from tests.support import promises as books
from tests.support.harness import ROOT, SCRIPTS, Bench, program, wait_until

TRAINER = str(SCRIPTS / "trainer.py")


def test_a_disk_that_fills_up_under_a_running_segment(tmp_path: Path) -> None:
    """On a disk of 3 MiB of its own, in a mount namespace where the kernel lets us have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = SCRIPTS / "full_disk.py"
    story = f"exec {sys.executable} {script} {tmp_path} {disk}"
    inside = f"mount -t tmpfs -o size=3m,mode=700 tmpfs {disk} && {story}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", inside],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace to be had: {done.stderr.strip()}")
    assert done.stdout == "well\n", done.stderr


def test_below_the_floor_nothing_starts_and_the_reason_says_so(bench: Bench) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "5")
    config = bench.home / "config.json"
    config.write_text(json.dumps({"minFreeDiskGB": 1048576}))
    strict = bench.worker()
    wait_until(
        lambda: "free disk" in str(bench.column(run, "reason")), saw=lambda: bench.column(run, "reason")
    )
    assert bench.state(run) == "queued"
    assert bench.end_worker(strict) == 0
    config.unlink()
    bench.worker()
    bench.wait_for(run, "completed")


def test_a_shortage_at_the_start_of_a_segment_is_no_fault_of_the_run(bench: Bench) -> None:
    """Where no file can be made in its folder for lack of room, the run waits; it is not held for the user."""
    run = bench.queue(TRAINER, "--", "--steps", "5")
    bench.worker("--drain").wait(timeout=60)
    again = bench.queue(TRAINER, "--", "--steps", "5")
    starved = subprocess.Popen(
        program("worker_without_room"),
        env=bench.environment,
        cwd=bench.project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert starved.wait(timeout=60) in (0, 9), "a refusal in one line, not a crash"
    except subprocess.TimeoutExpired:
        starved.kill()
        starved.wait()
    assert bench.state(run) == "completed"
    assert bench.state(again) in ("queued", "running")
    bench.worker()
    bench.wait_for(again, "completed")
    assert books.unsound(bench.home) == []


def test_a_record_that_the_last_room_takes_in_part_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(OSError) as caught:
        files.write(tmp_path / "exit.json", {"exit_code": 0}, durable=True)
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "exit.json").exists()
