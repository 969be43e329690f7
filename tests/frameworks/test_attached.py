"""Scripts that say nothing about resuming, with integrations attached at launch, end as if they had never been cut."""

from pathlib import Path
from typing import Any

import pytest

from tests.frameworks.chain import Training, end_of, prepare, reach, run_alone, skip_without, told
from tests.support.harness import Bench

TRAININGS = {
    "transformers": Training(
        "hf_bare", ("torch", "transformers", "accelerate"), ("--step_seconds=0",), ("--step_seconds=0.1",)
    ),
    "lightning": Training(
        "lightning_bare", ("torch", "lightning"), ("--step_seconds=0",), ("--step_seconds=0.1",)
    ),
    "lightning, one batch per epoch": Training(
        "lightning_bare",
        ("torch", "lightning"),
        ("--step_seconds=0",),
        ("--step_seconds=0.1", "--batch_size=640", "--epochs=60"),
    ),
    "keras": Training("keras_bare", ("torch", "keras"), ("--step-seconds=0",), ("--step-seconds=0.1",)),
    "trl": Training("trl_bare", ("torch", "trl", "datasets"), ("--step_seconds=0",), ("--step_seconds=0.1",)),
    "sentence-transformers": Training(
        "sentence_bare",
        ("torch", "sentence_transformers", "datasets"),
        ("--step_seconds=0",),
        ("--step_seconds=0.1",),
    ),
}
CUTS = (7, 31)
"""Steps after which a segment is stopped: in the middle of an epoch."""


@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_script_that_knows_of_no_resuming_ends_as_if_never_cut(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    training = TRAININGS[name]
    skip_without(*training.needs)
    alone = run_alone(training, tmp_path / "alone")
    prepare(bench, training)
    bench.worker()
    program, *arguments = training.command()
    run = bench.queue(program, "--", *arguments)
    assert bench.show(run)["goes_on_by"]["way"] == "integration"

    for step in CUTS:
        reach(bench, run, step)
        assert bench.backprop("stop", run).returncode == 0
        seen = bench.wait_for(run, "stopped", "completed", "failed", timeout_s=120)
        assert seen["state"] == "stopped", told(bench, run)
        last: dict[str, Any] = seen["segments"][-1]
        assert (last["exit_code"], last["cut_cost_s"]) == (75, 0), told(bench, run)
        assert bench.backprop("resume", run).returncode == 0
    seen = bench.wait_for(run, "completed", "failed", timeout_s=240)

    assert seen["state"] == "completed", told(bench, run)
    assert None not in [one["checkpoint_used"] for one in seen["segments"][1:]]
    assert end_of(bench.log(run, 3)) == alone, told(bench, run)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_timebox_ends_it_in_any_queue(bench: Bench) -> None:
    training = TRAININGS["transformers"]
    skip_without(*training.needs)
    prepare(bench, training)
    program, *_ = training.command()
    run = bench.queue("-m", "0.5", program, "--", "--step_seconds=0.5")
    bench.worker("--drain")

    seen = bench.wait_for(run, "completed", "failed", "timeboxed", timeout_s=600)

    assert seen["state"] == "completed", told(bench, run)
    assert [one["outcome"] for one in seen["segments"][:2]] == ["timeboxed", "timeboxed"]
    assert end_of(bench.log(run, len(seen["segments"]))).step == 96
