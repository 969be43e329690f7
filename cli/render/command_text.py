"""Prints a run's command as a shell would take it."""

import shlex
from pathlib import Path

from backprop.scheduler.spec import RunSpec


def command_text(spec: RunSpec) -> str:
    """Return the command as a person would type it, with the interpreter by its short name."""
    first = Path(spec.argv[0]).name if spec.argv[0] == spec.program else spec.argv[0]
    return shlex.join((first, *spec.argv[1:]))
