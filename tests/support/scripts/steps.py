"""Trains for these tests: each step makes one file with O_EXCL that holds the hash of the one before.

Two leaders at once would make the same step, or find the lock of the other: the script notes that then. `--steps N` in
all, `--pause S` for each. It saves after each step, and goes on from what it is handed.
"""

import argparse
import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import backprop

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--pause", type=float, default=0.1)
parser.add_argument("--term", action="store_true", help="save and exit at TERM")
parser.add_argument("--resume-from")
options = parser.parse_args()

run, segment = os.environ["BACKPROP_RUN_ID"], os.environ["BACKPROP_SEGMENT"]
folder = Path(f"steps-{run}")
folder.mkdir(exist_ok=True)
stop = False
alone = (folder / "alone.lock").open("w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    (folder / "doubles").open("a").write(f"segment {segment}\n")
    sys.exit("another leader of this run lives")


def asked(_number: int, _frame: object) -> None:
    global stop
    stop = True


signal.signal(signal.SIGINT, asked)
if options.term:
    signal.signal(signal.SIGTERM, asked)
step, digest = 0, ""
if options.resume_from:
    state = json.loads(Path(options.resume_from).read_text())
    step, digest = state["step"], state["digest"]
    # Steps after the checkpoint were lost with their leader: they are done again.
    for path in folder.glob("[0-9]*.json"):
        if int(path.stem) > step:
            path.unlink()
elif any(folder.glob("[0-9]*.json")):
    sys.exit("it starts over, and there are steps already")
while step < options.steps:
    if stop or backprop.should_stop():
        sys.exit(0)
    time.sleep(options.pause)
    step += 1
    digest = hashlib.sha256(f"{digest}{step}".encode()).hexdigest()
    body = json.dumps({"segment": segment, "digest": digest, "pid": os.getpid()}).encode()
    handle = os.open(folder / f"{step}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(handle, body)
    os.close(handle)
    saved = folder / "last.tmp"
    saved.write_text(json.dumps({"step": step, "digest": digest}))
    saved.rename(folder / "checkpoint.json")
    backprop.checkpoint(folder / "checkpoint.json", step=step)
    print(f"step {step}", flush=True)
print("done", flush=True)
