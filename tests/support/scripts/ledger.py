#!/usr/bin/env -S python3 -ISu
"""Trains as a leader that keeps books: what it did is on disk before it goes on, so that tests need believe nobody.

It counts to `--steps`, saves `ckpt-RUN-STEP` every `--save-every` steps and when SIGINT asks, announces it, and then
exits 75. `--first N`: the first segment exits 75 after N steps. In the file `ledger-RUN`, one synced line each:

    start SEGMENT STEP     it runs and begins after STEP
    step SEGMENT STEP      that step is done
    saved SEGMENT STEP     the checkpoint is on disk and the word of it in the log
    end SEGMENT CODE       it is about to exit
    fault ...              what must never happen: the same segment twice, or two leaders at once

`--slow SECONDS`: the save that SIGINT asks for takes so long. `--deaf`: it ignores SIGINT and SIGTERM.

A full disk below its log costs it the word of a checkpoint, not its life.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
import zlib

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS")
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--first", type=int, default=0, metavar="STEPS")
parser.add_argument("--slow", type=float, default=0.0, metavar="SECONDS")
parser.add_argument("--deaf", action="store_true")
options = parser.parse_args()

stop_asked: list[int] = []
if options.deaf:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGINT, lambda number, _: stop_asked.append(number))
run, segment = os.environ["BACKPROP_RUN_ID"], int(os.environ["BACKPROP_SEGMENT"])
ledger = os.open(f"ledger-{run}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
cut = False


def note(*words: object) -> None:
    os.write(ledger, (" ".join(map(str, words)) + "\n").encode())
    os.fsync(ledger)


def say(event: dict[str, object]) -> bool:
    """Write one line to the log. Return whether all of it got there."""
    global cut
    line = (b"\n" if cut else b"") + json.dumps(event).encode() + b"\n"
    try:
        cut = os.write(1, line) != len(line)
    except OSError:
        return False
    return not cut


def save(step: int) -> None:
    path = f"ckpt-{run}-{step}"
    draft = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(draft, str(step).encode())
    os.fsync(draft)
    # As a kernel would date it: where a test moves the wall clock, the kernel's own does not follow.
    os.utime(draft, (time.time(), time.time()))
    os.close(draft)
    os.replace(f"{path}.tmp", path)  # noqa: PTH105 - pathlib takes its time to load
    if say({"event": "checkpoint_saved", "path": path, "step": step}):
        note("saved", segment, step)


def leave(code: int) -> None:
    note("end", segment, code)
    sys.exit(code)


# A name that one process can have at a time, and no lock on a file: with one it would not be suspended.
alone = socket.socket(socket.AF_UNIX)
try:
    alone.bind(f"\0{zlib.crc32(os.getcwdb())}-{run}")  # noqa: PTH109
except OSError:
    note("fault two leaders at once, in segment", segment)
try:
    os.close(os.open(f"started-{run}-{segment}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
except FileExistsError:
    note("fault twice: segment", segment)

begin = os.environ.get("BACKPROP_RESUME_FROM")
step = 0
if begin:
    with open(begin) as file:  # noqa: PTH123
        step = int(file.read())
note("start", segment, step)
while step < options.steps:
    time.sleep(options.pace)
    step += 1
    note("step", segment, step)
    early = segment == 1 and step == options.first
    if stop_asked:
        time.sleep(options.slow)
    if step % options.save_every == 0 or step == options.steps or early or stop_asked:
        save(step)
    if (early or stop_asked) and step < options.steps:
        leave(75)
leave(0)
