"""`backprop.integrations` with the real frameworks: asked to stop in the middle of an epoch, no step is lost."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.frameworks.chain import Training, end_of, prepare, skip_without
from tests.support.harness import Bench

STEPS = 80
TRAININGS = {
    "lightning": Training("callback_lightning", ("torch", "lightning"), ()),
    "transformers": Training("callback_transformers", ("torch", "transformers", "accelerate"), ()),
    "keras": Training("callback_keras", ("torch", "keras"), ()),
}


def steps_in(log: str) -> list[int]:
    return [int(step) for step in re.findall(r"^step (\d+)$", log, re.MULTILINE)]


def stop(bench: Bench, run: str, segment: int, line: str) -> dict[str, Any]:
    """Wait for a line of the segment's log, have it stopped, and see how it ended."""
    bench.wait_for_log(run, line, segment, timeout_s=120)
    assert bench.backprop("stop", run).returncode == 0
    seen = bench.wait_for(run, "stopped", "completed", "failed", timeout_s=60)
    assert seen["state"] == "stopped", seen
    return seen


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_is_lost_or_done_twice(bench: Bench, name: str) -> None:
    training = TRAININGS[name]
    skip_without(*training.needs)
    prepare(bench, training)
    bench.worker()
    run = bench.queue(*training.command())

    for segment, line in ((1, "step 13\n"), (2, "step 47\n")):
        seen = stop(bench, run, segment, line)
        last = seen["segments"][-1]
        assert last["exit_code"] == 75, bench.log(run, segment)[-3000:]
        assert last["cut_cost_s"] == 0
        assert seen["last_checkpoint"]
        assert seen["last_loss"] is not None
        # Of Lightning the ModelCheckpoint's own file too: a crash leaves nothing newer.
        assert name != "lightning" or segment != 1 or 10 in [one["step"] for one in seen["checkpoints"]]
        assert bench.backprop("resume", run).returncode == 0
    bench.wait_for(run, "completed", "failed", timeout_s=120)

    logs = [bench.log(run, segment) for segment in (1, 2, 3)]
    steps = [steps_in(log) for log in logs]
    assert steps[0] + steps[1] + steps[2] == list(range(1, STEPS + 1)), logs[2][-3000:]
    assert end_of(logs[2]).step == STEPS


@pytest.mark.timeout(400)
def test_lightning_stops_in_the_middle_of_a_validation(bench: Bench) -> None:
    training = replace(TRAININGS["lightning"], arguments=("--validation-seconds", "2"))
    skip_without(*training.needs)
    prepare(bench, training)
    bench.worker()
    program, *arguments = training.command()
    run = bench.queue(program, "--", *arguments)

    seen = stop(bench, run, 1, "validated 0\n")

    assert seen["segments"][-1]["exit_code"] == 75, bench.log(run)[-3000:]
    assert steps_in(bench.log(run, 1)) == list(range(1, STEPS // 2 + 1))
    assert bench.backprop("resume", run).returncode == 0
    bench.wait_for_log(run, f"step {STEPS // 2 + 1}\n", 2, timeout_s=120)
    assert steps_in(bench.log(run, 2))[0] == STEPS // 2 + 1


@pytest.mark.timeout(400)
def test_all_ranks_stop_at_the_same_step(bench: Bench) -> None:
    training = replace(
        TRAININGS["transformers"], launcher=("torchrun", "--standalone", "--nproc_per_node", "2")
    )
    skip_without(*training.needs)
    prepare(bench, training)
    bench.worker()
    program, *arguments = training.command()
    run = bench.queue(program, "--", *arguments)
    bench.wait_for_log(run, "step 5\n", timeout_s=180)

    one_rank = children_of(bench.leader(run))[-1]
    os.kill(one_rank, signal.SIGINT)

    seen = bench.wait_for(run, "failed", "completed", timeout_s=120)
    steps = steps_in(bench.log(run))
    assert seen["state"] == "failed", "torchrun ends with 1, and nobody had asked it to"
    assert "exitcode  : 75" in bench.log(run), bench.log(run)[-3000:]
    assert steps.count(max(steps)) == 2, steps
    assert [one["step"] for one in seen["checkpoints"]] == [max(steps)]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
