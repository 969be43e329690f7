"""Follows the run argv[1] as `run --follow` does where a worker is at work: without settings to be one itself."""

import sys

from backprop.cli.context import open_home
from backprop.cli.live.follow import follow_run

sys.exit(follow_run(*open_home(), sys.argv[1], 0, None))
