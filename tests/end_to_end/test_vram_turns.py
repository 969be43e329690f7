"""Two runs that each take more than half of a GPU share it: the VRAM of the one that stands still lies in RAM."""

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from backprop.worker.executor.board import VARIABLE, Board
from tests.support.fake_gpus import GPU_TRAINER, HOST_IS_FINE
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.gpu_turns import (
    CARD,
    GPU,
    QUICK,
    SHARE_MIB,
    is_out,
    prove,
    queue,
    starts,
    step_of,
    told,
    wait_for_suspended,
)
from tests.support.harness import Bench, alive, wait_until

pytestmark = pytest.mark.gpu


def test_two_take_turns_on_one_gpu(bench: Bench, driver: FakeDriver) -> None:
    """After the doctor has had the driver tested: it says before that nothing is moved, and what to do."""
    driver.show(CARD)
    assert "run `backprop doctor --suspend-test` once" in bench.backprop("doctor").stdout
    tested = bench.backprop("doctor", "--suspend-test").stdout
    assert "GPU 0: passed: 256 MiB went out" in tested
    assert "a suspended run's VRAM is moved to RAM (driver 580" in tested
    runs = [queue(bench, name, 70) for name in ("a", "b")]
    bench.worker("-p", "1", "--drain", command=QUICK)
    wait_for_suspended(bench, runs[0])
    assert is_out(bench, driver, runs[0])
    refused = bench.backprop("doctor", "--suspend-test")
    assert (refused.returncode, "not tested while runs live here" in refused.stderr) == (10, True)
    for run in runs:
        shown = bench.wait_for(run, "completed", "failed", "timeboxed", "stopped", "held")
        assert shown["state"] == "completed", bench.output()
        (segment,) = shown["segments"]
        assert (segment["outcome"], starts(bench, run)) == ("completed", 1)
        assert f"total {sum(range(70))}\n" in bench.log(run)
    assert told(bench, "restored", "a")
    first = bench.show(runs[0])["suspensions"][0]
    times = [datetime.fromisoformat(first[name]) for name in ("ordered_at", "left_at", "claimed_at", "on_at")]
    assert times == sorted(times)
    assert times[1] > times[0], "its VRAM took a while to leave"
    assert times[3] > times[2], "and to come back"
    report = json.loads(bench.backprop("report", "--since", "2m", "--json").stdout)
    seconds = report["units"][0]["seconds"]
    assert seconds["suspend/thaw"] > 0
    assert sum(seconds.values()) == report["wall_s"]


def pair(
    bench: Bench, driver: FakeDriver, steps: int = 100_000, *words: str, failpoint: str = ""
) -> tuple[str, str]:
    """Have one run suspended beside another that runs on the card, with its VRAM in RAM, and one worker."""
    driver.show(CARD)
    prove(bench)
    first, second = queue(bench, "a", steps, *words), queue(bench, "b", steps, *words)
    bench.worker("-p", "1", command=QUICK, env={"BACKPROP_FAILPOINT": failpoint})
    wait_for_suspended(bench, first)
    assert is_out(bench, driver, first)
    wait_until(lambda: bench.state(second) == "running", saw=bench.output)
    return first, second


@pytest.mark.long
def test_the_next_worker_and_an_older_database_bring_it_back(bench: Bench, driver: FakeDriver) -> None:
    first, second = pair(bench, driver)
    assert bench.column(first, "reason")
    (worker,) = bench.workers
    worker.kill()
    worker.wait()
    (bench.home / "backprop.db").unlink()
    for path in bench.home.glob("backups/*"):
        path.unlink()
    at = step_of(bench, first)
    bench.worker("-p", "1", command=QUICK)
    wait_until(lambda: "put back from its folder" in bench.output(1), saw=lambda: bench.output(1))
    wait_until(lambda: bench.state(first) == "running", saw=lambda: bench.output(1))
    wait_until(lambda: step_of(bench, first) > at, saw=lambda: bench.output(1))
    assert (starts(bench, first), starts(bench, second)) == (1, 1)
    for run in (first, second):
        assert bench.backprop("stop", run).returncode == 0
    for run in (first, second):
        bench.wait_for(run, "stopped")


@pytest.mark.long
@pytest.mark.parametrize(
    "failpoint",
    [
        "leaving", "vram ordered out", "vram is out", "ordering suspension", "ordered suspension",
        "recording suspension", "recorded suspension", "thaw claimed", "box given", "thaw ordered",
        "vram ordered in",
    ],
)  # fmt: skip
def test_a_worker_is_killed_at_any_step(bench: Bench, driver: FakeDriver, failpoint: str) -> None:
    """Of two runs that share a GPU: none is started twice, and both complete."""
    driver.show(CARD)
    prove(bench)
    runs = [queue(bench, name, 60) for name in ("a", "b")]
    worker = bench.worker(
        "-p", "1", "--drain", command=QUICK, env={"BACKPROP_FAILPOINT": f"{failpoint}:kill"}
    )
    worker.wait(timeout=60)
    leaders = {run: bench.leader(run) for run in runs if starts(bench, run)}
    bench.worker("-p", "1", "--drain", command=QUICK)
    for run in runs:
        assert bench.wait_for(run, "completed", "failed", "timeboxed", "held")["state"] == "completed"
        assert starts(bench, run) == 1
        assert f"total {sum(range(60))}\n" in bench.log(run)
    assert all(bench.leader(run) == pid for run, pid in leaders.items())


@pytest.mark.long
def test_a_driver_that_refuses_is_asked_once(bench: Bench, driver: FakeDriver) -> None:
    """The run goes on past its box, since the other does not fit beside what it keeps."""
    driver.show(CARD)
    driver.cuda(checkpoint=801)
    prove(bench)
    first, second = (queue(bench, name, 200) for name in ("a", "b"))
    bench.worker("-p", "1", "--drain", command=QUICK)
    stays = "checkpoint: CUDA_ERROR_NOT_SUPPORTED (801)"
    wait_until(lambda: bench.column(first, "vram_stays") == stays, saw=bench.output)
    for run in (first, second):
        assert bench.wait_for(run, "completed", "failed", "timeboxed")["state"] == "completed"
    assert (told(bench, "leaving", "a"), told(bench, "suspended", "a")) == (1, 0)


def test_whose_vram_stays_saves_and_ends_for_its_user_or_goes_on(bench: Bench, driver: FakeDriver) -> None:
    """No driver was seen to move VRAM. The one that saves is held off, for good or for a time; the other is refused."""
    driver.show(FakeGpu(GPU, total=3000))
    words = ("-n", "a", "--gpu-min-vram", "300", *HOST_IS_FINE, str(GPU_TRAINER))
    saves = bench.queue(*words, "--", "--save", "--mib", "300", quiet_limits=False)
    plain = queue(bench, "b", 100_000, "-m", "10", mib=300)
    fresh = ("scheduler.governor.box_end", "worker.segments.boxes.segment_boxes", "worker.segments.live")
    bench.worker(command=(*QUICK[:-1], *(f"{module}.FRESH_S=4" for module in fresh), "--"))
    bench.wait_for_log(saves, "beat 110")
    wait_until(lambda: step_of(bench, plain) > 130, saw=bench.output)
    both = bench.backprop("suspend", "--all")
    assert both.returncode == 10
    assert f"asked a ({saves}) to save and end: " in both.stdout
    assert "it can't be suspended in place: its VRAM stays: " in both.stdout
    assert "this driver and GPU have not been tried" in both.stderr
    assert "suspended 0 runs" not in both.stdout
    refused = next(line for line in both.stderr.splitlines() if f"run {plain} is running" in line)
    assert "nothing is known to resume it with; an end would lose" in refused
    assert f"backprop stop {plain} ends it all the same" in refused
    assert bench.wait_for(saves, "held")["reason"].startswith("suspended by the user; backprop unsuspend")
    assert (bench.state(plain), len(bench.show(saves)["segments"])) == ("running", 1)
    assert bench.backprop("unsuspend", plain).returncode == 10
    assert bench.backprop("unsuspend", "--all").returncode == 0
    bench.wait_for_log(saves, "allocated", 2)
    wait_until(lambda: bench.show(saves)["segments"][-1]["peak_mib"], saw=bench.output)
    timed = bench.backprop("suspend", saves, "--for", "10m")
    assert "it goes on in its turn from" in timed.stdout + timed.stderr
    assert bench.wait_for(saves, "queued")["suspended_by"] == "kept"
    for run in (saves, plain):
        assert bench.backprop("stop", run).returncode == 0
    for run in (saves, plain):
        bench.wait_for(run, "stopped")


def test_a_driver_that_hangs_is_left_alone(bench: Bench, driver: FakeDriver) -> None:
    """Nothing is killed, and what it was at work on goes on once it answers."""
    driver.show(CARD)
    driver.cuda(hang=2)
    prove(bench)
    first = queue(bench, "a", 100_000)
    queue(bench, "b", 100_000)
    quick = (
        *QUICK[:-1],
        "worker.executor.vram.move_files.PATIENCE_S=1",
        "worker.executor.vram.move_files.SLOWEST_MIB_PER_S=1000",
        "--",
    )
    bench.worker("-p", "1", command=quick)
    wait_until(lambda: "VRAM is not moved any more" in bench.output(), saw=bench.output)
    leader, at = bench.leader(first), step_of(bench, first)
    assert bench.backprop("stop", first).returncode == 0
    assert (alive(leader), bench.state(first)) == (True, "running")
    driver.hangs_no_more()
    bench.wait_for(first, "stopped")
    assert step_of(bench, first) > at
    assert "killed" not in bench.output()


def test_a_restore_that_fails_for_ever_costs_the_work_since_the_last_checkpoint(
    bench: Bench, driver: FakeDriver
) -> None:
    """Or has the run held, where it has none."""
    first, second = pair(bench, driver)
    driver.cuda(restore=304)
    assert bench.backprop("stop", second).returncode == 0
    shown = bench.wait_for(first, "held", "failed", "queued")
    assert shown["state"] == "held"
    assert "its VRAM did not come back: restore: CUDA_ERROR_OPERATING_SYSTEM (304)" in shown["reason"]
    assert f"backprop resume {first}" in shown["reason"]
    wait_until(lambda: "lost" not in bench.states(), saw=bench.output)


@pytest.mark.long
def test_a_full_gpu_is_not_tried_and_the_run_waits_for_room(bench: Bench, driver: FakeDriver) -> None:
    first, second = pair(bench, driver)
    at = step_of(bench, first)
    somebody = subprocess.Popen(["sleep", "600"])
    driver.occupy(GPU, 390, somebody.pid)
    assert bench.backprop("stop", second).returncode == 0
    bench.wait_for(second, "stopped")

    def waits() -> bool:
        reason = str(bench.column(first, "reason"))
        return bench.state(first) == "suspended" and ("no room for its VRAM" in reason or "needs" in reason)

    wait_until(waits, saw=lambda: f"{bench.show(first)['state']} {bench.show(first)['reason']}")
    assert is_out(bench, driver, first)
    assert step_of(bench, first) == at
    somebody.kill()
    somebody.wait()
    wait_until(lambda: step_of(bench, first) > at, saw=bench.output)
    assert bench.backprop("stop", first).returncode == 0
    bench.wait_for(first, "stopped")


@pytest.mark.long
def test_room_that_is_gone_by_the_time_the_tree_goes_on_costs_nothing(
    bench: Bench, driver: FakeDriver
) -> None:
    first, second = pair(bench, driver, failpoint="thaw ordered:sleep:3000")
    at = step_of(bench, first)
    assert bench.backprop("stop", second).returncode == 0
    goes_on = bench.home / "runs" / first / "1" / "suspend.json"
    wait_until(lambda: json.loads(goes_on.read_text())["wanted"] == "running", saw=bench.output)
    somebody = subprocess.Popen(["sleep", "600"])
    driver.occupy(GPU, 390, somebody.pid)
    wait_until(lambda: "no room for its VRAM" in bench.output(), saw=bench.output)
    assert bench.state(first) == "suspended"
    assert is_out(bench, driver, first)
    somebody.kill()
    somebody.wait()
    wait_until(lambda: step_of(bench, first) > at, saw=bench.output)
    assert len(bench.show(first)["segments"]) == 1
    assert bench.backprop("stop", first).returncode == 0
    bench.wait_for(first, "stopped")


@pytest.mark.long
def test_what_another_home_has_promised_meanwhile_is_seen_before_it_comes_back(
    bench: Bench, driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, bench.environment[VARIABLE])
    (tmp_path / "another").mkdir()
    first, second = pair(bench, driver, failpoint="thaw claimed:sleep:3000")
    at = step_of(bench, first)
    assert bench.backprop("stop", second).returncode == 0
    wait_until(lambda: bench.state(first) == "running", saw=bench.output)
    promise = Board(tmp_path / "another").post((GPU,), SHARE_MIB, False)
    try:
        waits = "promised by another home"
        wait_until(lambda: waits in str(bench.column(first, "reason")), saw=bench.output)
        wait_until(lambda: bench.state(first) == "suspended", saw=bench.output)
        assert is_out(bench, driver, first)
        assert step_of(bench, first) == at
        assert not Board(tmp_path / "another").others(), "what is in RAM counts for nothing"
    finally:
        os.close(promise)
    wait_until(lambda: step_of(bench, first) > at, saw=bench.output)
    assert [one.mib >= SHARE_MIB for one in Board(tmp_path / "another").others()] == [True]
    assert bench.backprop("stop", first).returncode == 0
    bench.wait_for(first, "stopped")


@pytest.mark.long
def test_a_stop_waits_for_room_to_save_and_then_for_nothing(bench: Bench, driver: FakeDriver) -> None:
    first, second = pair(bench, driver, 100_000, "--grace-seconds", "1")
    leader = bench.leader(first)
    assert bench.backprop("stop", first).returncode == 0
    assert bench.wait_for(first, "stopped")["segments"][0]["outcome"] == "stopped"
    wait_until(lambda: not alive(leader))
    assert "it cannot save, its VRAM is in RAM" in bench.output()
    assert bench.backprop("stop", second).returncode == 0
    bench.wait_for(second, "stopped")
