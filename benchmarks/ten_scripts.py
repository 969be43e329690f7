"""Holds ten training scripts that save and resume in as many ways, for `benchmarks.continuity`. None of them trains.

Each takes `--steps N` and makes a step in STEP_S. It writes down in a book when it began and when each step ended, in
lines of `begun SECONDS` and `step NUMBER SECONDS`, on CLOCK_MONOTONIC.
"""

from typing import Final

STEP_S: Final = 0.1
_HEAD: Final = """
import argparse, json, os, pickle, sys, time

def write_down(*words):
    with open(__file__ + ".book", "a") as book:
        print(*words, time.monotonic(), file=book)

write_down("begun")
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int)
parser.add_argument("--resume")

def save(path, step):
    with open(path + ".tmp", "wb") as file:
        pickle.dump({"step": step, "optimizer": [step] * 100, "model": [step] * 1000}, file)
    os.replace(path + ".tmp", path)

def load(path):
    with open(path, "rb") as file:
        return pickle.load(file)["step"]

def train(step):
    time.sleep(0.1)
    write_down("step", step)
    print(f"step {step}/{args.steps} loss {1 / step:.4f}", flush=True)

def announce(path, step):
    print(json.dumps({"event": "checkpoint_saved", "path": path, "step": step}), flush=True)
"""
_FROM_ENVIRONMENT: Final = """
args = parser.parse_args()
path = os.environ.get("BACKPROP_RESUME_FROM")
done = load(path) if path else 0
"""
_FROM_OPTION: Final = """
args = parser.parse_args()
done = load(args.resume) if args.resume else 0
"""
_FROM_ZERO: Final = """
args = parser.parse_args()
done = 0
"""
_EVERY: Final = """
for step in range(done + 1, args.steps + 1):
    train(step)
    if step % {every} == 0:
        save(f"out-{name}/step{{step}}.ckpt", step)
        announce(f"out-{name}/step{{step}}.ckpt", step)
"""

SCRIPTS: Final = {
    "announces each second": _HEAD + _FROM_ENVIRONMENT + _EVERY.replace("{every}", "10"),
    "announces seldom": _HEAD + _FROM_ENVIRONMENT + _EVERY.replace("{every}", "150"),
    "is slow to start": _HEAD + "time.sleep(5)" + _FROM_ENVIRONMENT + _EVERY.replace("{every}", "10"),
    "asks should_stop()": _HEAD
    + _FROM_ENVIRONMENT
    + """
import backprop
for step in range(done + 1, args.steps + 1):
    train(step)
    if backprop.should_stop():
        save(f"out-{name}/last.ckpt", step)
        backprop.checkpoint(f"out-{name}/last.ckpt", step=step)
        sys.exit(75)
""",
    "saves when interrupted": _HEAD
    + _FROM_OPTION
    + """
step = done
try:
    for step in range(done + 1, args.steps + 1):
        train(step)
except KeyboardInterrupt:
    save(f"out-{name}/last.ckpt", step - 1)
    sys.exit(130)
""",
    "has an option --resume": _HEAD
    + _FROM_OPTION
    + """
for step in range(done + 1, args.steps + 1):
    train(step)
    if step % 10 == 0:
        save(f"out-{name}/step{step}.ckpt", step)
""",
    "goes on by itself": _HEAD
    + _FROM_ZERO
    + """
if os.path.exists(f"out-{name}/state.ckpt"):
    done = load(f"out-{name}/state.ckpt")
for step in range(done + 1, args.steps + 1):
    train(step)
    if step % 10 == 0:
        save(f"out-{name}/state.ckpt", step)
""",
    "keeps the best alone": _HEAD
    + _FROM_OPTION
    + """
best = 9.0
for step in range(done + 1, args.steps + 1):
    train(step)
    loss = 1 / step + 0.01 * (step % 37)
    if loss < best:
        best = loss
        save(f"out-{name}/best.ckpt", step)
""",
    "saves at its end": _HEAD
    + _FROM_ZERO
    + """
for step in range(1, args.steps + 1):
    train(step)
save(f"out-{name}/model.pkl", args.steps)
""",
    "saves nothing": _HEAD + _FROM_ZERO + "\nfor step in range(1, args.steps + 1):\n    train(step)\n",
}
"""The text of each script, by what it does. `{name}` stands for a folder of its own."""


def text(which: str, name: str) -> str:
    """Return the script's text with the name of its folder filled in."""
    return SCRIPTS[which].replace("{name}", name).replace("{{", "{").replace("}}", "}").lstrip()
