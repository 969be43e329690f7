"""Gives all segments of a run the same tracking variables, so that trackers and caches see one run.

A variable that the run's own environment has is left alone. docs/protocol.md says what each of them means to the
program that reads it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.worker.environment import mlflow, nodes
from backprop.worker.executor import segment_files

TRACKING_ID: Final = "BACKPROP_TRACKING_ID"
TENSORBOARD_DIR: Final = "BACKPROP_TENSORBOARD_DIR"
ID_STEM: Final = 40
"""Characters of the run's id in the tracking id: W&B takes at most 64 in all."""


def tracking_environment(home: Home, run: RunRecord, number: int, shell: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for segment `number`. `shell`: the run's own environment.

    Reads the run's folder and, from the second segment on, MLflow's store; writes nothing.
    """
    since = _begins_after(run)
    before = _environment_before(home.run_folder(run.id), since, number)
    tracking = shell.get(TRACKING_ID) or before.get(TRACKING_ID) or tracking_id(run, since + 1)
    board = shell.get("TENSORBOARD_LOGGING_DIR") or before.get(TENSORBOARD_DIR) or _board(run, tracking)
    wanted = {
        TRACKING_ID: tracking,
        TENSORBOARD_DIR: board,
        "TENSORBOARD_LOGGING_DIR": shell.get(TENSORBOARD_DIR, board),
        "TORCHINDUCTOR_CACHE_DIR": str(compile_cache(nodes.shared_root(home, run.spec), run.spec.program)),
        **_wandb(tracking, shell),
        **_mlflow(run, tracking, shell, before),
    }
    return {name: value for name, value in wanted.items() if name not in shell}


def tracking_id(run: RunRecord, first: int) -> str:
    """Return the id of the chain that began with segment `first`.

    The run's own id is not enough: it may be chosen again after the run was removed, and a tracker keeps an id forever.
    """
    whole = f"{run.id} {run.created_at_s!r} {first}"
    return f"{run.id[:ID_STEM]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def compile_cache(root: Path, program: str) -> Path:
    """Return where Inductor keeps what it has compiled for the runs of one interpreter, below `root`.

    Its default is a folder in /tmp, which a reboot or a cleaner empties; then every segment would compile again.
    """
    return root / "cache" / "inductor" / hashlib.sha256(program.encode()).hexdigest()[:12]


def _begins_after(run: RunRecord) -> int:
    """Return the segment before the first of the current tracked chain; 0 when that is the run's first.

    A tracked chain begins anew when the user chooses the checkpoint: its steps go back, which a tracker would refuse or
    draw over the old curve.
    """
    return 0 if run.resume_pin is None else run.chain_start


def _environment_before(folder: Path, since: int, number: int) -> Mapping[str, str]:
    """Return what the last segment before `number`, and after `since`, was given; empty when there was none."""
    for earlier in range(number - 1, since, -1):
        order = segment_files.read_order(folder / str(earlier))
        if order is not None:
            return order.environment
    return {}


def _board(run: RunRecord, tracking: str) -> str:
    """Return a folder below `runs/`, where `SummaryWriter()` and `tensorboard --logdir runs` look.

    Not in Backprop's home: the curves are the user's and must outlive `backprop rm`.
    """
    return str(Path(run.spec.cwd) / "runs" / f"{run.name}-{tracking}")


def _wandb(tracking: str, shell: Mapping[str, str]) -> dict[str, str]:
    """Return W&B's variables; none when the user's environment has WANDB_RESUME: "must" with an id that does not exist
    yet, or "never" with one that does, ends the script."""
    return {} if "WANDB_RESUME" in shell else {"WANDB_RUN_ID": tracking, "WANDB_RESUME": "allow"}


def _mlflow(
    run: RunRecord, tracking: str, shell: Mapping[str, str], before: Mapping[str, str]
) -> dict[str, str]:
    if "MLFLOW_RUN_ID" in shell:
        return {}
    tag = {"MLFLOW_RUN_CONTEXT": json.dumps({mlflow.TAG: tracking})}
    known = None
    if before:
        known = mlflow.run_of(tracking, Path(run.spec.cwd), shell, before.get("MLFLOW_RUN_ID"))
    return tag if known is None else tag | {"MLFLOW_RUN_ID": known}
