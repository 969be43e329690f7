"""Recipes at work: what `run` says of them, and scripts that know nothing of us, chained."""

from tests.support import training_scripts as trainers
from tests.support.harness import QUIET_LIMITS, Bench
from tests.support.refusals import refused


def test_queueing_says_what_was_recognised(bench: Bench) -> None:
    bench.script("train.py", trainers.HF_TRAINER)
    words = ("run", *QUIET_LIMITS, "train.py", "--", "--output_dir", "out")
    done = bench.backprop(*words)
    told = (
        "goes on by: its --resume_from_checkpoint (Hugging Face Trainer, TRL), else by suspending it in place\n"
        "recipe huggingface (train.py has transformers.Trainer): checkpoints out/checkpoint-*\n"
    )
    assert told in done.stderr
    assert "goes on" not in bench.backprop("run", "-q", *words[1:]).stderr
    run = bench.runs()[0]["id"]
    plan = bench.show(run)["plan"]
    assert plan["recipe"] == "huggingface"
    assert plan["globs"] == [str(bench.project / "out" / "checkpoint-*")]
    assert plan["resume_words"] == ["--resume_from_checkpoint", "{checkpoint}"]
    for shown in (bench.backprop("show", run), bench.backprop("run", "--dry-run", *words[1:])):
        assert "huggingface: train.py has transformers.Trainer" in shown.stdout
        assert "whole with trainer_state.json and *optim*" in shown.stdout


def test_signal_and_grace_are_the_recipes_unless_the_user_says_otherwise(bench: Bench) -> None:
    bench.script("train.py", trainers.HF_TRAINER)
    words = ("train.py", "--", "--enable_jit_checkpoint")
    assert "then SIGTERM and 60 s to save" in bench.backprop("run", "--dry-run", *words).stdout
    told = bench.backprop("run", "--dry-run", "--grace-seconds", "5", "--stop-signal", "INT", *words).stdout
    assert "then SIGINT and 5 s to save" in told


def test_one_that_cannot_be_resumed_is_told_so_at_once(bench: Bench) -> None:
    bench.script("train.py", trainers.LIGHTNING_NO_WAY)
    done = bench.backprop("run", *QUIET_LIMITS, "train.py", "--no-integrations")
    assert "after a reboot: nothing (Lightning, LightningCLI); its text passes no ckpt_path" in done.stderr
    assert "ckpt_path=os.environ.get('BACKPROP_RESUME_FROM')" in done.stderr
    assert bench.show(bench.runs()[0]["id"])["plan"]["resumes"] == "none"


def test_one_that_an_integration_is_attached_to_is_told_so(bench: Bench) -> None:
    bench.script("train.py", trainers.LIGHTNING_NO_WAY)
    text = "Lightning, LightningCLI (integration attached at launch)"
    assert text in bench.backprop("run", *QUIET_LIMITS, "--dry-run", "train.py").stdout
    text += ", else by suspending it in place"
    assert f"goes on by: {text}" in bench.backprop("run", *QUIET_LIMITS, "train.py").stderr
    run = bench.runs()[0]["id"]
    assert bench.show(run)["goes_on_by"] == {"way": "integration", "text": text}
    assert text in bench.backprop("show", run).stdout


def test_bad_names_and_patterns_are_one_line(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    said = refused(bench, 6, "run", "--recipe", "kears", "train.py")
    assert "unknown recipe kears; use one of" in said
    assert "keras" in said
    assert "its last part fits every name" in refused(
        bench, 6, "run", "--checkpoint-glob", "out/*", "train.py"
    )


def test_the_words_reach_the_process(bench: Bench) -> None:
    """The script's text is all that is read: its import of torch is never reached here."""
    script = "import sys\nprint('argv', sys.argv[1:])\nsys.exit(0)\n" + trainers.IMAGENET
    bench.script("train.py", script)
    bench.script("old.pt", "1")
    run = bench.queue("-r", "old.pt", "train.py", "--", "--epochs", "3")
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert f"argv ['--epochs', '3', '--resume', '{bench.project / 'old.pt'}']" in bench.log(run)


TORCH = """
    import json, zipfile

    def save(state, f):
        with zipfile.ZipFile(f, "w") as file:
            file.writestr("state", json.dumps(state))

    def load(f):
        with zipfile.ZipFile(f) as file:
            return json.loads(file.read("state"))
"""


UNMODIFIED = """
    import argparse, os, time
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--resume", default="", metavar="PATH", help="path to latest checkpoint (default: none)")
    parser.add_argument("--out", default="weights")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    start = torch.load(args.resume)["step"] if args.resume else 0
    print("begins at", start, flush=True)
    for step in range(start + 1, 41):
        time.sleep(0.1)
        if step % 3 == 0:
            torch.save({"step": step}, os.path.join(args.out, f"step_{step}.pt"))
    print("ended at", step)
"""


def test_a_script_that_knows_nothing_of_us_is_chained_to_its_end(bench: Bench) -> None:
    bench.script("torch.py", TORCH)
    bench.script("train.py", UNMODIFIED)
    run = bench.queue("train.py", "-m", "0.03", "--at-timebox", "end", "--grace-seconds", "1")
    assert bench.worker("--drain").wait(timeout=100) == 0
    shown = bench.show(run)
    assert shown["state"] == "completed", (shown, bench.output())
    used = [each["checkpoint_used"] for each in shown["segments"]]
    assert len(used) > 1
    assert used[0] is None
    for number, path in enumerate(used[1:], start=2):
        step = path.rpartition("_")[2].removesuffix(".pt")
        assert bench.log(run, number).startswith(f"begins at {step}\n")
    assert "ended at 40" in bench.log(run, len(used))
