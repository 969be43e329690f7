"""The `backprop` command with its n-th supervisor started under other words, strace's say, and with short pauses.

python -m tests.faults.sweep.driver N '["strace", …]' -- worker --drain
"""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from backprop.cli.main import main
from backprop.scheduler.outcome import failures as outcome
from backprop.worker import loop
from backprop.worker.executor import supervisor_program

started = 0


def popen(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    global started
    started += 1
    return subprocess.Popen([*prefix, *command] if started == nth else command, **options)


nth, prefix = int(sys.argv[1]), json.loads(sys.argv[2])
supervisor_program.subprocess = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]
outcome.BACKOFF_BASE_S = 0.2  # type: ignore[misc]
loop.TROUBLE_PAUSE_S = (0.2, 2.0)  # type: ignore[misc]
sys.argv[1:4] = []
sys.exit(main())
