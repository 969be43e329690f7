"""A worker that takes a silence of two seconds for a hang, and soon tries again."""

import sys

from backprop.cli.main import main
from backprop.scheduler.outcome import failures
from backprop.worker.segments.hang import watch

watch.FLOOR_S, watch.FIRST_LOOK_S, watch.LOOK_EVERY_S = 2.0, 0.5, 0.5
failures.BACKOFF_BASE_S = 1.0
sys.argv = ["backprop", *sys.argv[1:]]
sys.exit(main())
