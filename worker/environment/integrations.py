"""The variables that attach our integrations to a run's Python: a folder in front of its PYTHONPATH, and who asks.

The folder holds one module, `sitecustomize`. Nothing of this is kept with the run: it is added at each start.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import backprop
from backprop.scheduler.records import RunRecord

FOLDER: Final = str(Path(backprop.__file__).parent / "integrations" / "at_launch")


def integration_environment(run: RunRecord, number: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables; none where nothing is to be attached. `environment`: of the run, without them.

    An empty entry of PYTHONPATH would be the current directory, so none is made.
    """
    folder = FOLDER
    if run.spec.cluster is not None and run.spec.share is not None:
        from backprop.worker.executor.cluster import node_program

        folder = str(node_program.folder_on(run.spec.share) / "backprop" / "integrations" / "at_launch")
    if not run.spec.attaches or os.pathsep in folder:
        return {}
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry != folder]
    kept = entries if any(entries) else []
    command = hashlib.sha256("\0".join(run.spec.argv).encode()).hexdigest()[:16]
    return {
        "PYTHONPATH": os.pathsep.join([folder, *kept]),
        "BACKPROP_INTEGRATIONS": f"{run.id}:{number}:{command}",
    }
