"""Runs scripts that import the SDK, inside and outside Backprop."""

import os
import subprocess
import sys
from pathlib import Path


def environment(**inside: str) -> dict[str, str]:
    """Return our environment as it is outside Backprop, with what `inside` adds."""
    ours = {name for name in os.environ if name.startswith("BACKPROP_")}
    return {name: value for name, value in os.environ.items() if name not in ours} | inside


def script(code: str, cwd: Path, **inside: str) -> str:
    """Return what the script prints; it must exit with 0 and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", code],
        cwd=cwd,
        env=environment(**inside),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
