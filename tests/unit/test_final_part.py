"""Whether a script that was asked to stop and exited 0 had finished: what real trainings print, cut at every line."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from backprop.worker.executor.segment_files import StopFile
from backprop.worker.segments.ends.final_part import OVER, Verdict, said, shown_end
from backprop.worker.segments.tail import LAST_BYTES


def lines(*text: str) -> bytes:
    return "\n".join(text).encode() + b"\n"


def bar(desc: str, total: int, upto: int | None = None, step: int = 5) -> str:
    """As tqdm draws it: each state behind a carriage return."""
    upto = total if upto is None else upto
    states = [*range(0, upto, step), upto]
    return "".join(
        f"\r{desc}{100 * at // total:3d}%|{'█' * (10 * at // total):10}| {at}/{total} [00:01<00:02, 9.1it/s]"
        for at in states
    )


def keras(total: int, upto: int | None = None) -> str:
    green = "\x1b[32m━━━━\x1b[0m\x1b[37m\x1b[0m"
    return "".join(
        f"\r\x1b[1m{at}/{total}\x1b[0m {green} \x1b[1m0s\x1b[0m 2ms/step - accuracy: 0.5 - loss: 0.6"
        for at in range(1, (upto or total) + 1)
    )


FINISHED: dict[str, tuple[bytes, str]] = {
    "a plain loop": (lines(*(f"step {at}/20 loss {1 / at:.3f}" for at in range(1, 21))), "step 20/20"),
    "…, and its result": (
        lines("step 19/20 loss 0.2", "step 20/20 loss 0.1", "final loss 0.1", "saved out/model.pt"),
        "step 20/20",
    ),
    "steps in brackets": (lines("[12:00:01] iter [90/100] lr 0.1", "[12:00:02] iter [100/100] lr 0.1"), "step 100/100"),
    "a bar over steps": (bar("Steps: ", 1000, step=100).encode(), "step 1000/1000"),
    "a bar over epochs": (bar("Epoch: ", 3, step=1).encode() + b"\n", "step 3/3"),
    "one line for each epoch": (
        lines(*(f"Epoch {at}/3, train loss: 0.{at}, acc: 0.5" for at in range(1, 4))), "epoch 3/3",
    ),
    "epochs with their steps": (
        lines(*(f"Epoch [{epoch}/2], Step [{at}/300], Loss: 0.5" for epoch in (1, 2) for at in (100, 200, 300))),
        "epoch 2/2",
    ),
    "epochs with their bars": (
        "\n".join(bar(f"Epoch {at}/2 ", 50) + bar(f"Epoch {at}/2 [val] ", 10) for at in (1, 2)).encode(), "epoch 2/2",
    ),
    "Keras": ("\n".join(f"Epoch {at}/3\n{keras(9)}" for at in (1, 2, 3)).encode(), "epoch 3/3"),
    "Keras, resumed in its last epoch": (f"Epoch 3/3\n{keras(9)}\n".encode(), "epoch 3/3"),
    "Keras, a line per epoch": (
        lines(*(text for at in (1, 2) for text in (f"Epoch {at}/2", "9/9 - 3s - 30ms/step - loss: 0.6"))), "epoch 2/2",
    ),
    "JSON": (lines(*(f'{{"step": {at}, "total_steps": 30, "loss": 0.3}}' for at in (10, 20, 30))), "step 30/30"),
    "the SDK": (
        lines(
            *(f'{{"step": {at}, "loss": 0.3, "metrics": {{"total": 30.0}}}}' for at in (29, 30)),
            '{"step": 30, "loss": null, "metrics": {"accuracy": 0.9}}',
        ), "step 30/30",
    ),
    "JSON, an epoch": (
        lines(*(f'{{"epoch": {at}, "epochs": 2, "loss": 0.3}}' for at in (1, 2))), "epoch 2/2",
    ),
}  # fmt: skip
UNKNOWN: dict[str, bytes] = {
    "nothing": b"",
    "nanoGPT": lines("iter 490: loss 1.2, time 3ms", "step 500: train loss 1.1, val loss 1.3"),
    "a full bar of its own, of one epoch or a validation": (bar("", 50) + "\nval acc 0.93\n").encode(),
    "a bar of an epoch of unknown many": (bar("Epoch 3: ", 50) + "\n").encode(),
    "a validation's bar": (bar("Validating: ", 10) + bar("Eval step: ", 10)).encode(),
    "a header alone": lines("Epoch 4/5", "train Loss: 0.4", "val Loss: 0.5", "Epoch 5/5"),
    "a header with its settings": lines("Epoch 4/5 lr 0.1", "loss 0.4", "Epoch 5/5 lr 0.1"),
    "an epoch with many lines": lines(*(f"Epoch {at}/2 iter {n} loss: 0.4" for at in (1, 2) for n in (1, 2, 3))),
    "an epoch's first step alone": lines("Epoch 1/2 iter 0 loss: 2.3", "iter 0 of Epoch 2/2 loss: 0.4"),
    "… in JSON": lines(*(f'{{"epoch": {at}, "epochs": 2, "step": 0, "loss": 0.3}}' for at in (1, 2))),
    "steps of an epoch": lines("Epoch 1 step 9/10", "Epoch 1 step 10/10", "Epoch 2 step 9/10", "Epoch 2 step 10/10"),
    "… in JSON, of unknown many": lines('{"epoch": 1, "loss": 0.3}', "step 9/10", "step 10/10"),
    "steps that begin again": lines("step 9/10", "step 10/10", "step 1/10", "step 10/10"),
    "warming up": lines("warm-up step 9/10", "warm-up step 10/10", "iter 1 loss 0.5"),
    "a first part": lines("step 9/10 loss 0.5", "step 10/10 loss 0.4", "iter 1 loss 3.0"),
    "the last epoch's validation before its training": (
        f"Epoch 1/2\n{keras(9)}\n{bar('val ', 3)}\nEpoch 2/2\n{bar('val ', 3)}".encode()
    ),
    "one who says that it leaves early": lines("step 9/10", "step 10/10", "interrupted: exiting early"),
    "numbers with a slash": lines("data/10/10 of 2024/05/05", "Accuracy: 95/95", "ratio 1/2.5"),
    "warming up, in a bar": bar("Warmup steps: ", 50).encode(),
    "a download at its end": lines("Downloading weights: 10/10 files"),
    "a count that was there at once": lines("step 10/10"),
}  # fmt: skip
UNFINISHED: dict[str, bytes] = {
    "a validation in the middle": (bar("", 100, 45) + bar("", 10)).encode(),
    "… with words": (bar("Steps: ", 100, 45) + bar("Validating: ", 10)).encode(),
    "Keras in its last epoch": f"Epoch 1/2\n{keras(9)}\nEpoch 2/2\n{keras(9, 8)}".encode(),
    "Keras, and an evaluation": f"Epoch 2/2\n{keras(9, 8)}\n{keras(5)}\n".encode(),
    "an epoch's first of many images": lines(
        "Epoch 1/2 [0/6000 (0%)] Loss: 2.3", "Epoch 2/2 [0/6000 (0%)] Loss: 0.3"
    ),
    "a last epoch's steps": lines("Epoch [2/2], Step [100/300], Loss: 0.5"),
    "a table's epoch": (
        lines("      Epoch    GPU_mem   box_loss   cls_loss  Instances       Size")
        + bar("        2/5       2.1G      1.105        0.9         24        640: ", 10).encode()
    ),
    "steps with commas": lines("step 12,000 of 50,000 loss 0.3"),
    "the first of several folds": lines("Fold 1/5", "Epoch 1/2 loss: 0.3", "Epoch 2/2 loss: 0.2"),
    "JSON": lines('{"step": 10, "total": 30}', "step 9/10", "step 10/10"),
}
SAYS: dict[str, Sequence[str]] = {
    "Hugging Face": (
        "{'loss': 0.5, 'learning_rate': 5e-05, 'epoch': 1.0}",
        "{'train_runtime': 11.4, 'train_samples_per_second': 70.1, 'train_loss': 0.61, 'epoch': 3.0}",
        "{'eval_loss': 0.5, 'eval_runtime': 0.2, 'epoch': 3.0}",
    ),
    "Lightning": (bar("Epoch 2: ", 50), "`Trainer.fit` stopped: `max_epochs=3` reached."),
    "Ultralytics": (
        bar("        5/5      0G      1.21      224: ", 8), "5 epochs completed in 0.012 hours.",
        "Optimizer stripped from runs/detect/train/weights/last.pt, 6.2MB",
    ),
    "fairseq": ("2024-01-01 | INFO | fairseq_cli.train | done training in 30.1 seconds",),
    "a tutorial": ("train Loss: 0.4 Acc: 0.9", "Training complete in 0m 30s", "Best val Acc: 0.9"),
    "another": ("[1, 2000] loss: 2.2", "Finished Training"),
}  # fmt: skip


@pytest.mark.parametrize("what", FINISHED)
def test_counters_that_stand_at_their_end_show_it(what: str) -> None:
    text, end = FINISHED[what]
    assert said(b"", text) == Verdict(end)


@pytest.mark.parametrize(
    "what", sorted(set(FINISHED) - {"the SDK", "…, and its result", "epochs with their bars"})
)
def test_no_earlier_moment_of_the_same_output_shows_it(what: str) -> None:
    text, _ = FINISHED[what]
    last = max(text.rstrip().rfind(end) for end in (b"\r", b"\n"))
    for at, byte in enumerate(text[: last + 1]):
        if byte in b"\r\n":
            assert said(b"", text[:at]).end is None, text[:at][-80:]


@pytest.mark.parametrize("what", [*UNKNOWN, *UNFINISHED])
def test_what_may_count_something_else_does_not(what: str) -> None:
    assert said(b"", (UNKNOWN | UNFINISHED)[what]) == Verdict(unfinished=what in UNFINISHED)


@pytest.mark.parametrize("what", SAYS)
def test_who_had_said_that_training_was_over_had_begun_its_final_part(what: str) -> None:
    text = lines(*SAYS[what])
    assert said(b"", text, before=text) == Verdict(OVER)
    assert said(b"", text) == Verdict(), "it said so after the signal, perhaps because of it"
    again = text + lines("{'loss': 2.5, 'epoch': 0.1}")
    assert said(b"", again, before=again).end is None, "a second training has begun"
    assert said(text, text, before=text).end is None, "the second of several"
    left = text + lines("KeyboardInterrupt: stopping early")
    assert said(b"", left, before=text).end is None


def test_the_training_counter_far_above_a_long_validation_is_not_forgotten(tmp_path: Path) -> None:
    def log(counter: str) -> bytes:
        return lines(counter) + bar("step: ", 60_000, step=10).encode()

    for counter, shown in (("Epoch 1/3 loss: 0.5", None), ("", "step 60000/60000")):
        (tmp_path / "log").write_bytes(log(counter))
        assert shown_end(tmp_path, None) == shown


def test_the_moment_of_the_signal_divides_the_log(tmp_path: Path) -> None:
    before, over = lines("iter 5 loss 0.3"), lines("Training complete in 3s")
    (tmp_path / "log").write_bytes(before + over)

    def shown(size: int | None) -> str | None:
        return shown_end(tmp_path, StopFile(asked="timebox", at_s=1.0, log_bytes=size))

    assert shown(len(before + over)) == OVER
    assert shown(len(before)) is None
    assert shown(None) is None, "an older supervisor"
    assert shown(len(before + over) + 1) is None, "it was cut"
    (tmp_path / "events.jsonl").write_text('{"step": 3, "metrics": {"total": 9.0}}\n')
    assert shown(len(before + over)) is None, "its own announcements speak against it"


@pytest.mark.parametrize("line", ["a 1/1 ", "accacc", "1%|", "[1/1 ", "exit a ", "epoch", "99%|| 1/1 [", "{"])
def test_no_output_takes_long(line: str) -> None:
    began = time.process_time()
    said(line.encode() * (LAST_BYTES // len(line)), line.encode() * (LAST_BYTES // len(line)))
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("kind", ["none", "folder", "link"])
def test_what_is_no_log_shows_nothing(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "log").mkdir()
    elif kind == "link":
        (tmp_path / "log").symlink_to(tmp_path / "other")
        (tmp_path / "other").write_bytes(FINISHED["a plain loop"][0])
    assert shown_end(tmp_path, None) is None
