"""Sweep: python -m tests.faults.sweep          every fault at every call of every scene (an hour or more)
       python -m tests.faults.sweep --points 50 --seed 7 --scene worker
       python -m tests.faults.sweep --jobs 16 --part 3/8     an eighth of them, sixteen at a time

Ends with 1, and keeps the folder, when a promise was broken.
"""

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults.sweep import faults
from tests.faults.sweep.faults import Point
from tests.faults.sweep.scenes import SCENES, Scene, all_points, strike


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep", description=__doc__)
    parser.add_argument(
        "--points", type=int, metavar="N", help="a random sample of N faults a scene; default: all"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--scene", choices=[scene.name for scene in SCENES], help="this one alone")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="play this many at a time; default: 1"
    )
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N", help="each N-th fault alone, from the K-th on"
    )
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
        number, parts = options.part
        points = points[number - 1 :: parts]
        came, began_s = 0, time.monotonic()
        for struck, found in _played(scene, points, folder / scene.name, options.jobs):
            came += struck
            wrong += found
        took_s = time.monotonic() - began_s
        print(f"{scene.name}: {len(points)} faults, {came} came to pass, {took_s:.0f} s", flush=True)
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


def _played(
    scene: Scene, points: Sequence[Point], folder: Path, jobs: int
) -> Iterator[tuple[bool, list[str]]]:
    """Yield for each fault whether it came to pass and what is wrong. Keep the folder of what is wrong."""
    with ProcessPoolExecutor(jobs) as pool:
        places = [folder / str(number) for number in range(len(points))]
        for where, (struck, found) in zip(
            places, pool.map(strike, itertools.repeat(scene), points, places), strict=True
        ):
            for fault in found:
                print(f"FAULT {fault}   {where}", flush=True)
            if not found:
                shutil.rmtree(where)
            yield struck, found


def _part(text: str) -> tuple[int, int]:
    number, parts = map(int, text.split("/"))
    if not 1 <= number <= parts:
        raise ValueError(text)
    return number, parts


if __name__ == "__main__":
    sys.exit(main())
