"""A draining worker that may not make any file grow."""

import resource
import sys

from backprop.cli.main import main

resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))
sys.argv = ["backprop", "worker", "--drain"]
sys.exit(main())
