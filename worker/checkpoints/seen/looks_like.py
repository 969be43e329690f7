"""Tells by its name whether a file, or a folder by what is in it, may be a checkpoint. Pure.

It only decides what is looked at any closer. A data set, a cache or a part of a checkpoint is left out: a run that was
given it as its checkpoint would crash.
"""

import re
from collections.abc import Collection
from typing import Final

_ALWAYS: Final = (
    ".pt",
    ".pth",
    ".ckpt",
    ".safetensors",
    ".pth.tar",
    ".pt.tar",
    ".ckpt.tar",
    ".keras",
    ".pdparams",
)
_IF_NAMED: Final = (".npz", ".h5", ".hdf5", ".pkl", ".pickle", ".msgpack", ".eqx", ".joblib", ".json", ".bin")
_HINT: Final = re.compile(
    r"ckpt|check_?point|model|weight|state|last|latest|best|epoch|step|iter|snapshot|save|resume|backup",
    re.IGNORECASE,
)
_PART: Final = re.compile(
    r"optim|sched|scaler|rng|random_states|training_args|trainer_state|config|args|metric|history|vocab|token|index"
    r"|log|\bmeta",
    re.IGNORECASE,
)
_DATA: Final = re.compile(
    r"^(train|test|val|valid|validation|data|dataset|cache|features?|labels?|embeddings?|processed|stats|batch)\b",
    re.IGNORECASE,
)
_SKIPPED: Final = frozenset(
    {
        "__pycache__",
        "blobs",
        "hub",
        "pretrained",
        "pretrained_models",
        "snapshots",
        "node_modules",
        "site-packages",
        "wandb",
        "data",
        "dataset",
        "datasets",
        "cache",
        "venv",
        "env",
    }
)
_SETS: Final = (
    frozenset({"trainer_state.json"}),
    frozenset({"_CHECKPOINT_METADATA"}),
    frozenset({".metadata", "__0_0.distcp"}),
    frozenset({"random_states_0.pkl"}),
    frozenset({"config.json", "model.safetensors"}),
    frozenset({"config.json", "pytorch_model.bin"}),
    frozenset({"latest", "zero_to_fp32.py"}),
    frozenset({"mp_rank_00_model_states.pt"}),
)
"""Names that a folder has which is a checkpoint as a whole: Hugging Face, orbax, PyTorch's distributed one, Accelerate,
DeepSpeed."""


def may_be_checkpoint(name: str, folder: str) -> bool:
    """Return whether a file may be one. `folder`: the name of the folder it lies in."""
    lower = name.lower()
    suffix = next((each for each in (*_ALWAYS, *_IF_NAMED) if lower.endswith(each)), None)
    if suffix is None:
        return False
    stem = name[: -len(suffix)]
    if _PART.search(stem) or (_DATA.search(stem) and not _HINT.search(stem)):
        return False
    return suffix in _ALWAYS or _HINT.search(stem) is not None or _HINT.search(folder) is not None


def is_checkpoint_folder(names: Collection[str]) -> bool:
    """Return whether a folder with these names in it is one checkpoint."""
    return any(each.issubset(names) for each in _SETS)


def is_left_out(name: str) -> bool:
    """Return whether a folder of this name holds no checkpoints of a run."""
    return name.startswith((".", "models--")) or name.lower() in _SKIPPED
