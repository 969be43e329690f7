"""Stands in for a training script on the fake GPUs: takes memory there, beats, saves, resumes, ends as it is told to.

Says "takes UUID,UUID", "allocated", then "beat N" twenty times a second. Ends with 0 once the file `--until` exists;
without that option only when stopped. SIGINT makes it save `ckpt-RUN-BEATS` and end. When the file `--grow-when` exists
it takes `--grow-mib` more. `--child`: a process of its own beside it. `--save`: every second. `--oom-segments N`: the
first N segments save and then end as PyTorch does when a GPU's memory is full.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from allocate import allocate

parser = argparse.ArgumentParser()
parser.add_argument("--resume-from", type=Path)
parser.add_argument("--mib", type=int, default=0)
parser.add_argument("--delay-s", type=float, default=0.0)
parser.add_argument("--until", type=Path)
parser.add_argument("--grow-when", type=Path)
parser.add_argument("--grow-mib", type=int, default=0)
parser.add_argument("--child", action="store_true")
parser.add_argument("--save", action="store_true")
parser.add_argument("--oom-segments", type=int, default=0)
options = parser.parse_args()

stop_asked: list[int] = []
signal.signal(signal.SIGINT, lambda number, _: stop_asked.append(number))
uuids = [uuid for uuid in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if uuid]
beats = int(options.resume_from.read_text()) if options.resume_from else 0


class OutOfMemoryError(RuntimeError):
    __module__ = "torch"


def take(mib: int) -> None:
    for uuid in uuids if mib else ():
        allocate(Path(os.environ["FAKE_NVML_DIR"]), uuid, mib)


def save() -> None:
    draft = Path(f"{os.environ['BACKPROP_RUN_ID']}.unfinished")
    draft.write_text(str(beats))
    path = draft.rename(f"ckpt-{os.environ['BACKPROP_RUN_ID']}-{beats}")
    print(json.dumps({"event": "checkpoint_saved", "path": str(path), "step": beats}), flush=True)


print(f"takes {','.join(uuids) or 'no GPU'}, begins at beat {beats}", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) if options.child else None
time.sleep(options.delay_s)
take(options.mib)
print("allocated", flush=True)
grown = False
while not (options.until and options.until.exists()) and not stop_asked:
    time.sleep(0.05)
    beats += 1
    print(f"beat {beats}", flush=True)
    if options.save and beats % 20 == 0:
        save()
    if int(os.environ["BACKPROP_SEGMENT"]) <= options.oom_segments and beats % 20 == 19:
        save()
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if options.grow_when and options.grow_when.exists() and not grown:
        grown = True
        take(options.mib + options.grow_mib)
        print("grown", flush=True)
if stop_asked:
    save()
if child is not None:
    child.kill()
    child.wait()
