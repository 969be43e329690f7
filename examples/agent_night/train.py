"""A training with a budget of seconds and one number at its end, as agents edit them.

Fits a small polynomial to noisy points by gradient descent. What an agent edits stands between the two lines.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

BUDGET_S = float(os.environ.get("BUDGET_S", "1.0"))
# --- edited by the agent
LEARNING_RATE = 0.05
DEGREE = 2
# --- up to here

CHECKPOINT = Path(f"{os.environ.get('BACKPROP_RUN_ID', 'alone')}.ckpt")
chance = random.Random(0)
POINTS = [(x / 50 - 1, (x / 50 - 1) ** 3 + chance.gauss(0, 0.05)) for x in range(100)]


def predict(weights: list[float], x: float) -> float:
    return sum(weight * x**power for power, weight in enumerate(weights))


def loss_of(weights: list[float]) -> float:
    return sum((predict(weights, x) - y) ** 2 for x, y in POINTS) / len(POINTS)


def save(step: int, weights: list[float]) -> None:
    draft = CHECKPOINT.with_suffix(".new")
    draft.write_text(json.dumps({"step": step, "weights": weights}))
    draft.replace(CHECKPOINT)
    print(json.dumps({"event": "checkpoint_saved", "path": str(CHECKPOINT), "step": step}), flush=True)


def main() -> None:
    step, weights = 0, [0.0] * (DEGREE + 1)
    resumed = os.environ.get("BACKPROP_RESUME_FROM")
    if resumed:
        saved = json.loads(Path(resumed).read_text())
        step, weights = saved["step"], saved["weights"]
    asked: list[bool] = []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    steps = int(BUDGET_S * 20)
    while step < steps:
        for x, y in POINTS:
            error = predict(weights, x) - y
            weights = [w - LEARNING_RATE * error * x**power for power, w in enumerate(weights)]
        step += 1
        print(f"step {step}/{steps} loss {loss_of(weights):.4f}", flush=True)
        if asked or step % 10 == 0:
            save(step, weights)
        if asked:
            sys.exit(75)
        time.sleep(0.02)
    save(step, weights)
    print("---")
    print(f"val_bpb: {loss_of(weights):.6f}")
    print(f"num_steps: {step}")


main()
