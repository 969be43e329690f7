"""Triage: python -m benchmarks.triage make FOLDER --frameworks PYTHON   run programs that fail, keep their logs
       python -m benchmarks.triage score FILE...                    how well they are told apart

`make` writes `rules.jsonl`, the half to write rules by, and `held_out.jsonl`, the half that is opened once, at the end.
"""

import argparse
import time
from pathlib import Path

from benchmarks.triage import sample
from benchmarks.triage.make import make
from benchmarks.triage.score import show


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triage", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="run programs that fail, and keep their logs")
    making.add_argument("folder", type=Path)
    making.add_argument(
        "--frameworks", type=Path, required=True, help="an interpreter that has PyTorch and others"
    )
    making.add_argument("--other", type=Path, action="append", default=[], help="one more interpreter")
    making.add_argument("--seed", type=int, default=1)
    making.add_argument("--jobs", type=int, default=2)
    scoring = verbs.add_parser("score", help="tell how well they are told apart")
    scoring.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.verb == "make":
        began_s = time.monotonic()
        halves = make(options.folder, options.frameworks, options.other, options.seed, options.jobs)
        for name, samples in zip(("rules", "held_out"), halves, strict=True):
            sample.write(options.folder / f"{name}.jsonl", samples)
            print(f"{name}: {len(samples)} logs", flush=True)
        print(f"{time.monotonic() - began_s:.0f} s")
    else:
        for path in options.files:
            show(path.stem, sample.read(path))


if __name__ == "__main__":
    main()
