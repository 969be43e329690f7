"""Reads GPUs for a worker, in a process of its own: `python -m backprop.worker.probes.helper --kind auto`.

One line on stdin (its text does not matter) asks for one reading; the answer is one line of JSON on stdout, a
`Reading`. End of input ends the process. It may hang in a driver for ever: nobody waits for it.
"""

import argparse
import sys
from pathlib import Path

import msgspec

from backprop.scheduler.config.choices import ProbeKind
from backprop.scheduler.governor.snapshot import NO_SOURCE
from backprop.worker.probes.hardware import ROOT
from backprop.worker.probes.reader import Reader
from backprop.worker.probes.reading import Reading


def main() -> None:
    """Answer until the input ends."""
    options = _options()
    reader = Reader(
        ProbeKind(options.kind),
        tool_deadline_s=options.tool_deadline_s,
        root=options.root,
        folders=options.tool_folder or None,
    )
    for _ in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(_read(reader)) + b"\n")
        sys.stdout.buffer.flush()


def _read(reader: Reader) -> Reading:
    try:
        return reader.read()
    except Exception as error:
        return Reading((), NO_SOURCE, f"the GPU probe failed: {type(error).__name__}: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Answer each line on stdin with one reading of all GPUs.")
    parser.add_argument("--kind", choices=[kind.value for kind in ProbeKind], default=ProbeKind.AUTO.value)
    parser.add_argument("--tool-deadline-s", type=float, default=8.0)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--tool-folder", type=Path, action="append")
    return parser.parse_args()


if __name__ == "__main__":
    main()
