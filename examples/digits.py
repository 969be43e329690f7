"""Train a small network on real handwritten digits; stop at any time, resume, and get the same weights.

    backprop run -m 0.1 examples/digits.py        # segments of 6 seconds, chained until it is done
    python examples/digits.py                     # without Backprop: about 20 seconds, Ctrl-C saves
    python examples/digits.py --resume-from digits-out/ckpt-1000.json

Standard library alone, and no `import backprop`: this shows all that Backprop expects of a script.

- It stops when asked: on SIGINT or SIGTERM it finishes the batch, saves, and exits with 75 ("run me again").
- It saves so that a checkpoint is whole or absent: temporary name, fsync, rename, fsync of the folder.
- It says so, after the fact, as a line of JSON: {"event": "checkpoint_saved", "path": ..., "step": ...}.
- It resumes with --resume-from, from everything the future depends on: weights, velocities, the place in the
  epoch and its order, the random generator. So however often it was interrupted, `weights.json` comes out the
  same to the last bit (on one machine and Python version: exp() and sum() may differ between them).

Exit codes: 0 trained; 1 diverged; 2 bad arguments, or a checkpoint that does not fit; 75 stopped as asked.
"""

import argparse
import gzip
import json
import math
import os
import random
import signal
import sys
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from types import FrameType

DATA = Path(__file__).parent / "data" / "digits.csv.gz"
FORMAT = "digits-checkpoint-1"
CLASSES = 10
BATCH = 32  # images
MOMENTUM = 0.9
DROPPED = 0.25  # share of the hidden units left out for an image while training
REPORT_EVERY = 10  # batches
HOLD_OUT_EVERY = 6  # every sixth image is never trained on; the writers of both parts are the same
KEPT_CHECKPOINTS = 2
EX_TEMPFAIL = 75  # sysexits.h

Row = list[float]
Matrix = list[Row]  # a row per unit; its last number is the bias
Image = tuple[Row, int]  # 64 pixels in 0..1 and a constant 1 for the bias; the digit


@dataclass(frozen=True)
class Settings:
    """What the result depends on. A checkpoint made with others does not fit, but epochs may be added."""

    seed: int
    hidden: int  # units
    lr: float
    epochs: int


@dataclass
class State:
    """Everything the rest of the training depends on; a checkpoint is this, and nothing is kept elsewhere."""

    step: int  # batches done
    epoch: int  # epochs done
    position: int  # images of this epoch done
    order: list[int]  # of the images in this epoch
    rng: random.Random
    weights: list[Matrix]  # hidden layer, output layer
    velocity: list[Matrix]


class CheckpointError(Exception):
    """The file is no checkpoint of this script, or one of a training with other settings."""


def fresh_state(settings: Settings, images: int) -> State:
    rng = random.Random(settings.seed)

    def layer(units: int, inputs: int) -> Matrix:
        scale = math.sqrt(2 / inputs)  # He et al. 2015, for ReLU
        return [[rng.gauss(0.0, scale) for _ in range(inputs)] + [0.0] for _ in range(units)]

    weights = [layer(settings.hidden, 64), layer(CLASSES, settings.hidden)]
    order = list(range(images))
    rng.shuffle(order)
    return State(0, 0, 0, order, rng, weights, [zeros_like(matrix) for matrix in weights])


def zeros_like(matrix: Matrix) -> Matrix:
    return [[0.0] * len(row) for row in matrix]


def load_images() -> tuple[list[Image], list[Image]]:
    """The images to train on and those held out: a fixed split, the same for every seed."""
    with gzip.open(DATA, "rt", encoding="ascii") as lines:
        rows = [[int(cell) for cell in line.split(",")] for line in lines]
    images = [([pixel / 16 for pixel in row[:64]] + [1.0], row[64]) for row in rows]
    held_out = images[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]
    return [image for i, image in enumerate(images, 1) if i % HOLD_OUT_EVERY], held_out


def forward(weights: list[Matrix], pixels: Row, kept: Row | None = None) -> tuple[Row, Row]:
    """Activations of the hidden layer (with a 1 appended for the bias) and the scores of the ten digits.

    `kept`: a factor for each hidden unit, 0 for those dropped; None when not training."""
    hidden = [total if (total := sum(map(mul, row, pixels))) > 0 else 0.0 for row in weights[0]]
    if kept is not None:
        hidden = list(map(mul, hidden, kept))
    hidden.append(1.0)
    return hidden, [sum(map(mul, row, hidden)) for row in weights[1]]


def softmax_loss(scores: Row, digit: int) -> tuple[Row, float]:
    """The probability of each digit and the cross entropy against the true one."""
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    total = sum(powers)
    return [power / total for power in powers], math.log(total) - (scores[digit] - top)


def train_batch(state: State, batch: list[Image], lr: float) -> float:
    """One step of stochastic gradient descent with momentum, in place. Returns the batch's mean loss."""
    gradient = [zeros_like(matrix) for matrix in state.weights]
    units = len(state.weights[0])
    loss_sum = 0.0
    for pixels, digit in batch:
        kept = [0.0 if state.rng.random() < DROPPED else 1 / (1 - DROPPED) for _ in range(units)]
        hidden, scores = forward(state.weights, pixels, kept)
        errors, loss = softmax_loss(scores, digit)
        errors[digit] -= 1.0
        loss_sum += loss
        back = [0.0] * units
        for k, error in enumerate(errors):
            gradient[1][k] = [
                total + error * value for total, value in zip(gradient[1][k], hidden, strict=True)
            ]
            back = [total + error * weight for total, weight in zip(back, state.weights[1][k], strict=False)]
        for j in range(units):
            if hidden[j] > 0.0:
                error = back[j] * kept[j]
                gradient[0][j] = [total + error * x for total, x in zip(gradient[0][j], pixels, strict=True)]
    pace = lr / len(batch)
    for weights, velocity, slope in zip(state.weights, state.velocity, gradient, strict=True):
        for j, row in enumerate(slope):
            velocity[j] = [MOMENTUM * v - pace * g for v, g in zip(velocity[j], row, strict=True)]
            weights[j] = list(map(float.__add__, weights[j], velocity[j]))
    state.step += 1
    state.position += len(batch)
    return loss_sum / len(batch)


def evaluate(weights: list[Matrix], images: list[Image]) -> tuple[float, float]:
    """Mean loss and share of right answers."""
    loss_sum, right = 0.0, 0
    for pixels, digit in images:
        scores = forward(weights, pixels)[1]
        loss_sum += softmax_loss(scores, digit)[1]
        right += scores.index(max(scores)) == digit
    return loss_sum / len(images), right / len(images)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that after any crash `path` holds the whole text, what it held before, or nothing."""
    half = path.with_name(".unfinished")  # one name, so a kill leaves at most one such file
    with half.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the new name last through a power cut
    finally:
        os.close(folder)


def save_checkpoint(folder: Path, settings: Settings, state: State) -> None:
    """Write `ckpt-<step>.json`, announce it, and delete those before the previous one.

    JSON keeps floats to the last bit: Python prints the shortest digits that read back as the same number."""
    path = folder / f"ckpt-{state.step}.json"
    version, internal, gauss_next = state.rng.getstate()
    fields = vars(state) | {"rng": [version, list(internal), gauss_next]}
    write_whole(
        path, json.dumps({"format": FORMAT, "settings": vars(settings), "state": fields}, allow_nan=False)
    )
    say({"event": "checkpoint_saved", "path": str(path), "step": state.step})
    steps = sorted(int(old.stem[5:]) for old in folder.glob("ckpt-*.json") if old.stem[5:].isdecimal())
    for step in [step for step in steps if step <= state.step][:-KEPT_CHECKPOINTS]:
        (folder / f"ckpt-{step}.json").unlink(missing_ok=True)


def load_checkpoint(path: Path, settings: Settings) -> State:
    """Raises CheckpointError."""
    try:
        saved = json.loads(path.read_text(encoding="ascii"))
        if saved["format"] != FORMAT:
            raise CheckpointError(
                f"{path} is not a checkpoint of this script: its format is {saved['format']!r}"
            )
        theirs = Settings(**saved["settings"])
        version, internal, gauss_next = saved["state"].pop("rng")
        rng = random.Random()
        rng.setstate((version, tuple(internal), gauss_next))
        state = State(rng=rng, **saved["state"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    for name, ours in vars(settings).items():
        theirs_value = vars(theirs)[name]
        if ours != theirs_value and not (name == "epochs" and ours > theirs_value):
            hint = f"give --{name} {theirs_value}{' or more' if name == 'epochs' else ''}, or start afresh"
            raise CheckpointError(f"{path} was made with --{name} {theirs_value}, not {ours}; {hint}")
    return state


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


def train(settings: Settings, state: State, images: list[Image], folder: Path, stop_asked: list[int]) -> bool:
    """Train to the last epoch, saving after each; False if asked to stop before, with everything saved.

    `stop_asked`: the signal handler appends to it. Asked before the first batch it saves nothing: the file it
    resumed from says the same, and a new one would look like progress."""
    saved_step = state.step
    while state.epoch < settings.epochs:
        while state.position < len(images):
            if stop_asked:
                if state.step > saved_step:
                    save_checkpoint(folder, settings, state)
                return False
            batch = [images[i] for i in state.order[state.position : state.position + BATCH]]
            loss = train_batch(state, batch, settings.lr)
            if not math.isfinite(loss):
                raise SystemExit(
                    f"the loss is {loss} at step {state.step}: try a smaller --lr than {settings.lr}"
                )
            if state.step % REPORT_EVERY == 0:
                say({"step": state.step, "loss": round(loss, 6)})
        state.epoch, state.position = state.epoch + 1, 0
        state.rng.shuffle(state.order)
        save_checkpoint(folder, settings, state)
        saved_step = state.step
    return True


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description="Train a small network on the UCI handwritten digits.")
    parser.add_argument("--resume-from", type=Path, metavar="PATH", help="checkpoint of an earlier start")
    parser.add_argument(
        "--out", type=Path, default=Path("digits-out"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--epochs", type=int, default=45, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--hidden", type=int, default=32, metavar="UNITS", help="default: %(default)s")
    parser.add_argument("--lr", type=float, default=0.05, metavar="RATE", help="default: %(default)s")
    given = parser.parse_args()
    if given.epochs < 1 or given.hidden < 1 or not 0 < given.lr < math.inf:
        parser.error("--epochs, --hidden and --lr must be above zero")
    return parser, given


def main() -> int:
    stop_asked: list[int] = []

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        stop_asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    parser, given = arguments()
    settings = Settings(given.seed, given.hidden, given.lr, given.epochs)
    folder: Path = given.out.absolute()
    training, held_out = load_images()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if given.resume_from is None:
            state = fresh_state(settings, len(training))
        else:
            state = load_checkpoint(given.resume_from, settings)
    except (OSError, CheckpointError) as error:
        parser.error(str(error))
    if not train(settings, state, training, folder, stop_asked):
        print(f"stopped at step {state.step}, as asked; run me again to go on", file=sys.stderr)
        return EX_TEMPFAIL
    loss, accuracy = evaluate(state.weights, held_out)
    write_whole(folder / "weights.json", json.dumps(state.weights, allow_nan=False))
    say({"step": state.step, "loss": round(loss, 6), "metrics": {"accuracy": round(accuracy, 6)}})
    print(f"accuracy {accuracy:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
