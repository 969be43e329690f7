"""Tells whether a cluster's scheduler has signalled all processes of a job at once.

Slurm sends TERM to each process of a job that it ends: to the user's own as well as to ours. Standard library only,
imports nothing of Backprop.
"""

import contextlib
from pathlib import Path

import claim
import files

STEP_DAEMONS = ("slurmstepd",)
"""Who signals the processes of a job."""


def reached_all(folder: Path, sender: int) -> bool:
    """Return whether a TERM from the process `sender` is one that all processes of the job were sent."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{sender}/comm").read_text().strip() in STEP_DAEMONS:
            return True
    return (files.glance(folder / claim.ENDED_BY) or {}).get("told") is True
