"""Stands in for a training script: counts steps, saves, resumes, and ends as it is told to.

Each step takes `--pace` seconds. A checkpoint is a file `ckpt-STEP` that holds the step, saved every
`--save-every` steps, at the end, and when SIGINT asks for it (with `--no-save-on-stop` not then). It notes in the
file `starts` each of its starts as "SEGMENT STEP", and in `doubles` whether another one of the same folder was
alive at that time.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--resume-from", type=Path)
parser.add_argument("--steps", type=int, default=100000)
parser.add_argument("--pace", type=float, default=0.02, metavar="SECONDS")
parser.add_argument("--save-every", type=int, default=5, metavar="STEPS", help="0: never by itself")
parser.add_argument("--save-until", type=int, default=1 << 60, metavar="STEP")
parser.add_argument("--no-save-on-stop", action="store_true")
parser.add_argument("--deaf", action="append", default=[], metavar="SIGNAL", help="INT, TERM; repeatable")
parser.add_argument("--stop-code", type=int, default=0, metavar="CODE", help="exit code when stopped")
parser.add_argument("--end-code", type=int, default=0, metavar="CODE", help="exit code after the last step")
options = parser.parse_args()

stop_asked: list[int] = []
signal.signal(signal.SIGINT, lambda number, _: stop_asked.append(number))
for name in options.deaf:
    signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)

alone = os.open("alone.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    with Path("doubles").open("a") as file:
        file.write(f"{os.environ['BACKPROP_RUN_ID']} {os.environ['BACKPROP_SEGMENT']}\n")


def save(step: int) -> None:
    # Of its own: others may be saving in this folder.
    unfinished = Path(f"ckpt.unfinished.{os.getpid()}")
    unfinished.write_text(str(step))
    unfinished.replace(f"ckpt-{step}")
    print(json.dumps({"event": "checkpoint_saved", "path": f"ckpt-{step}", "step": step}), flush=True)


step = int(options.resume_from.read_text()) if options.resume_from else 0
with Path("starts").open("a") as starts:
    starts.write(f"{os.environ['BACKPROP_SEGMENT']} {step}\n")
print(f"begins at step {step}", flush=True)
while step < options.steps:
    time.sleep(options.pace)
    step += 1
    print(json.dumps({"step": step, "loss": 1 / step}), flush=True)
    due = options.save_every and step % options.save_every == 0 and step <= options.save_until
    if due or (step == options.steps and options.save_every) or (stop_asked and not options.no_save_on_stop):
        save(step)
    if stop_asked:
        print(f"stops at step {step}", flush=True)
        sys.exit(options.stop_code)
sys.exit(options.end_code)
