"""Reads the log argv[1], whose first line is too long, and prints by how many KiB the peak of memory grew."""

import resource
import sys
from pathlib import Path

from backprop.worker.segments.tail import Tail

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tail, lines = Tail(Path(sys.argv[1])), []
while not tail.at_end:
    lines += tail.read()
tail.close()
assert lines == [b"after"], lines
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
