"""Sweep: python -m tests.faults.sweep          every fault at every call of every scene (an hour or more)
       python -m tests.faults.sweep --points 50 --seed 7 --scene worker

Ends with 1, and keeps the folder, when a promise was broken.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.sweep import faults
from tests.faults.sweep.scenes import SCENES, all_points, strike


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep", description=__doc__)
    parser.add_argument(
        "--points", type=int, metavar="N", help="a random sample of N faults a scene; default: all"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--scene", choices=[scene.name for scene in SCENES], help="this one alone")
    parser.add_argument(
        "--match", default="", metavar="TEXT", help="only faults whose description holds this"
    )
    options = parser.parse_args()
    why = faults.unusable()
    if why is not None:
        print(why, file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="sweep-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    wrong: list[str] = []
    for scene in SCENES:
        if options.scene not in (None, scene.name):
            continue
        points = [one for one in all_points(scene, folder / scene.name) if options.match in str(one)]
        if options.points is not None:
            points = random.Random(options.seed).sample(points, min(options.points, len(points)))
        came, began_s = 0, time.monotonic()
        for number, point in enumerate(points):
            where = folder / scene.name / str(number)
            struck, found = strike(scene, point, where)
            came += struck
            wrong += found
            for fault in found:
                print(f"FAULT {fault}   {where}", flush=True)
            if not found:
                shutil.rmtree(where)
        took_s = time.monotonic() - began_s
        print(f"{scene.name}: {len(points)} faults, {came} came to pass, {took_s:.0f} s", flush=True)
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
