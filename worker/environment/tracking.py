"""What stays the same through all segments of a run, so that trackers and caches take them for one?

Each variable is left alone where the run's own environment has it. What every one of them means to the program that
reads it stands in docs/protocol.md.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.worker.environment import mlflow
from backprop.worker.executor import segment_files

TRACKING_ID: Final = "BACKPROP_TRACKING_ID"
TENSORBOARD_DIR: Final = "BACKPROP_TENSORBOARD_DIR"
ID_STEM: Final = 40
"""Characters of the run's id in the tracking id: W&B takes at most 64 in all."""


def tracking_environment(home: Home, run: RunRecord, number: int, shell: Mapping[str, str]) -> dict[str, str]:
    """The variables for segment `number`. `shell`: the run's own environment. Reads the run's folder and, from the
    second segment on, MLflow's store; writes nothing."""
    since = _begins_after(run)
    before = _environment_before(home.run_folder(run.id), since, number)
    tracking = shell.get(TRACKING_ID) or before.get(TRACKING_ID) or tracking_id(run, since + 1)
    board = shell.get("TENSORBOARD_LOGGING_DIR") or before.get(TENSORBOARD_DIR) or _board(run, tracking)
    wanted = {
        TRACKING_ID: tracking,
        TENSORBOARD_DIR: board,
        "TENSORBOARD_LOGGING_DIR": shell.get(TENSORBOARD_DIR, board),
        "TORCHINDUCTOR_CACHE_DIR": str(compile_cache(home, run.spec.program)),
        **_wandb(tracking, shell),
        **_mlflow(run, tracking, shell, before),
    }
    return {name: value for name, value in wanted.items() if name not in shell}


def tracking_id(run: RunRecord, first: int) -> str:
    """One id for a chain that began with segment `first`. The run's own is not enough: it may be chosen again after
    the run was removed, and a tracker knows an id for ever."""
    whole = f"{run.id} {run.created_at_s!r} {first}"
    return f"{run.id[:ID_STEM]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def compile_cache(home: Home, program: str) -> Path:
    """Where Inductor keeps what it has compiled for the runs of one interpreter. Its own choice is a folder in /tmp,
    which a reboot or a cleaner empties; then every segment would compile anew."""
    return home.root / "cache" / "inductor" / hashlib.sha256(program.encode()).hexdigest()[:12]


def _begins_after(run: RunRecord) -> int:
    """The segment before the one that the present chain began with; 0 for the first. A chain begins anew when the user
    says from where: its steps go back, which a tracker would refuse or draw over the old curve."""
    return 0 if run.resume_pin is None else run.chain_start


def _environment_before(folder: Path, since: int, number: int) -> Mapping[str, str]:
    """What the last segment before `number`, and after `since`, was given; empty for none."""
    for earlier in range(number - 1, since, -1):
        order = segment_files.read_order(folder / str(earlier))
        if order is not None:
            return order.environment
    return {}


def _board(run: RunRecord, tracking: str) -> str:
    """Below `runs/`, where `SummaryWriter()` and `tensorboard --logdir runs` look; not in our home, since the curves
    are the user's and must outlive `backprop rm`."""
    return str(Path(run.spec.cwd) / "runs" / f"{run.name}-{tracking}")


def _wandb(tracking: str, shell: Mapping[str, str]) -> dict[str, str]:
    """Nothing for a script whose user resumes W&B runs in a way of his own: "must" with an id that is not there yet,
    or "never" with one that is, ends the script."""
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
