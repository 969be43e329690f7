"""Measures what it costs to follow a log, with and without numbers in it: `python -m benchmarks.plain_output`.

A segment's log is read as by a worker whose run prints faster than it is read: `LIVE_BYTES` at each look. The share of
the numbers is what the same look costs more than one that passes all lines over.
"""

import argparse
import tempfile
import time
from pathlib import Path

from backprop.worker.progress.numbers import PlainReader
from backprop.worker.segments import events
from backprop.worker.segments.live import LIVE_BYTES
from backprop.worker.segments.plain_output import PlainOutput
from backprop.worker.segments.tail import Tail
from benchmarks.machine import machine

LOGS = {
    "no numbers": b"reading the shards of the data set from the disk, one after the other\n",
    "steps and losses": b"epoch 12 step 34567 lr 0.0003 loss 0.123 it/s 45.6 [#####-----] some more text\n",
    "a progress bar": b" 34%|###4      | 34/100 [00:03<00:06, 10.2it/s, loss=0.512]\r",
    "dicts": b"{'loss': 1.2, 'grad_norm': 0.4, 'learning_rate': 5e-05, 'epoch': 0.3}\n",
    "a hostile line": b"loss:1 " * 9000 + b"\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plain_output", description="Measure reading of logs."
    )
    parser.add_argument("--quick", action="store_true", help="little output: to see that it works")
    size = (4 if parser.parse_args().quick else 64) << 20
    print(machine(), end="\n\n", flush=True)
    print("| log | events alone, MB/s | with numbers, MB/s | numbers, ms a look |")
    print("| --- | ---: | ---: | ---: |")
    for name, line in LOGS.items():
        alone_s, looks_s, looks = _follow(line, size)
        megabytes = size / 1e6
        both = megabytes / (alone_s + looks_s)
        print(f"| {name} | {megabytes / alone_s:.0f} | {both:.0f} | {1000 * looks_s / looks:.1f} |")


def _follow(line: bytes, size: int) -> tuple[float, float, int]:
    """Return CPU seconds for the events, for the numbers, and how many looks there were."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.write_bytes(line * (size // len(line)))
        events_s = numbers_s = 0.0
        looks = 0
        with Tail(log, 0, events.may_hold_any) as tail:
            plain = PlainOutput(tail, PlainReader())
            while not tail.at_end:
                begun_s = time.process_time()
                tail.read(LIVE_BYTES)
                read_s = time.process_time()
                plain.look(final=False)
                numbers_s += time.process_time() - read_s
                events_s += read_s - begun_s
                looks += 1
    return events_s, numbers_s, looks


if __name__ == "__main__":
    main()
