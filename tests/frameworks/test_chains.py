"""Scripts that were not written for Backprop, cut into segments, end where they end without interruption."""

from pathlib import Path

import pytest

from tests.frameworks.chain import Training, end_of, run_alone, run_chained, skip_without, told
from tests.support.harness import Bench

HF = "--output_dir out --max_steps 100 --save_steps 20 --save_total_limit 2 --logging_steps 10 --use_cpu"
CLI = "fit --trainer.max_epochs 5 --trainer.accelerator cpu --trainer.enable_progress_bar false"
TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "1")
TRAININGS = {
    "pytorch": Training("plain_torch", ("torch",), ("--step-seconds=0",)),
    "pytorch, torchrun": Training("plain_torch", ("torch",), ("--step-seconds=0",), launcher=TORCHRUN),
    "nanogpt": Training("nanogpt_train", ("torch",), ("--iter_seconds=0",)),
    "huggingface": Training(
        "hf_trainer", ("torch", "transformers", "accelerate"), ("--step_seconds=0",), tuple(HF.split())
    ),
    "lightning": Training("lightning_script", ("torch", "lightning"), ("--step_seconds=0",)),
    "lightning, LightningCLI": Training(
        "lightning_cli",
        ("torch", "lightning", "jsonargparse"),
        ("--model.step_seconds=0",),
        tuple(CLI.split()),
    ),
    "keras": Training("keras_backup", ("torch", "keras"), ("--step-seconds=0",)),
    "accelerate": Training("accelerate_train", ("torch", "accelerate"), ("--step_seconds=0",)),
    "mmengine": Training(
        "mmengine_train",
        ("torch", "mmengine"),
        ("--step-seconds=0",),
        environment={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    ),
}


@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_chain_ends_as_the_uninterrupted_script_does(bench: Bench, tmp_path: Path, name: str) -> None:
    training = TRAININGS[name]
    skip_without(*training.needs)
    alone = run_alone(training, tmp_path / "alone")

    run, seen = run_chained(bench, training)

    segments = seen["segments"]
    assert seen["state"] == "completed", told(bench, run)
    assert seen["plan"]["recipe"] == name.partition(",")[0]
    assert [one["outcome"] for one in segments] == ["timeboxed", "timeboxed", "completed"]
    used = [one["checkpoint_used"] for one in segments]
    assert used[0] is None
    assert None not in used[1:]
    assert end_of(bench.log(run, len(segments))) == alone
