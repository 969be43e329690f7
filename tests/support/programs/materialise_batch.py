"""Makes the folders of sixty runs of the batch "b" in the home argv[1], once a byte comes on stdin."""

import sys
from pathlib import Path
from types import SimpleNamespace

from backprop.scheduler.home import batch_file
from backprop.scheduler.home.layout import Home

sys.stdin.read(1)
for number in range(60):
    run = SimpleNamespace(id=f"b-{number}", batch="b", segment=0)
    assert batch_file.materialise(Home(Path(sys.argv[1])), run)
