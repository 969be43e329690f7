"""Looks at checkpoints on disk for what forbids to remove them. Only reads; what cannot be told forbids it too."""

import os
import re
import stat
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import open_regular
from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints.candidate import fault_of
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.validation import CheckpointFile, measure

MOST_NEIGHBOURS: Final = 5000
MOST_PARTS: Final = 10_000
POINTER_BYTES: Final = 64 * 1024
STATE_BYTES: Final = 64 * 1024 * 1024
_POINTER: Final = re.compile(
    r"(?:latest|last|best|newest|checkpoint)[\w-]*(?:\.txt|\.json|\.yaml)?", re.IGNORECASE
)
"""Names of the small files in which trainers note which checkpoint is which: DeepSpeed, Megatron, TensorFlow,
Detectron2, MMEngine."""


class _TrainerState(msgspec.Struct):
    best_model_checkpoint: str | None = None


def fault_since(record: CheckpointRecord, needs: Sequence[str]) -> str | None:
    """Return why a checkpoint is no longer the good one that it was when it was recorded; None for one that is."""
    path = Path(record.path)
    try:
        if os.path.realpath(path, strict=True) != record.path:
            return "its path leads through a link now"
        file = measure(path)
    except FileNotFoundError:
        return "it is gone"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    if isinstance(file, str):
        return file
    if file != CheckpointFile.of(record):
        return "it has changed since it was saved"
    try:
        return fault_of(file, needs)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def why_not_ours(record: CheckpointRecord, began: Beginning) -> str | None:
    """Return why something in it may be somebody else's than the run's. `began`: the run's beginning."""
    if record.attribution is None:
        return "it is not known which run wrote it"
    if began.may_have_lain_there(record.path):
        return "something of this name lay there before the run, or may have"
    try:
        return _foreign_part(Path(record.path)) if record.is_dir else None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def why_named(record: CheckpointRecord, kept: Iterable[CheckpointRecord]) -> str | None:
    """Return what beside it, or in a checkpoint that stays, points to it; None where nothing does."""
    path = Path(record.path)
    try:
        for entry in _neighbours(path):
            if entry.is_symlink() and _leads_to(entry.path, record.path):
                return f"the link {entry.name} leads to it"
            if (
                entry.is_file(follow_symlinks=False)
                and _POINTER.fullmatch(entry.name)
                and _names(entry, path.name)
            ):
                return f"{entry.name} names it"
        for other in kept:
            if other.is_dir and _best_of(Path(other.path)) == path.name:
                return f"{Path(other.path).name} names it as the best"
    except OSError as error:
        return f"its folder cannot be read: {error.strerror}"
    return None


def _foreign_part(folder: Path) -> str | None:
    """Return why a folder holds more than a trainer's own files. Raises OSError."""
    device, seen = folder.lstat().st_dev, 0
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                info = entry.stat(follow_symlinks=False)
                if seen > MOST_PARTS:
                    return f"it holds more than {MOST_PARTS} files"
                if stat.S_ISDIR(info.st_mode) and info.st_dev == device:
                    waiting.append(entry.path)
                elif not stat.S_ISREG(info.st_mode) or info.st_dev != device:
                    return f"it holds {entry.name}, which is no file of its own"
                if info.st_uid != os.geteuid():
                    return f"{entry.name} in it is not yours"
    return None


def _neighbours(path: Path) -> list[os.DirEntry[str]]:
    """Raises OSError, also where there are too many to look at."""
    with os.scandir(path.parent) as entries:
        found = [*islice(entries, MOST_NEIGHBOURS + 1)]
    if len(found) > MOST_NEIGHBOURS:
        raise OSError(0, f"more than {MOST_NEIGHBOURS} files")
    return found


def _leads_to(link: str, path: str) -> bool:
    target = os.path.realpath(link)
    return target == path or target.startswith(f"{path}/")


def _names(entry: os.DirEntry[str], name: str) -> bool:
    """Return whether a small text file, other than itself, names it."""
    if entry.name == name or entry.stat(follow_symlinks=False).st_size > POINTER_BYTES:
        return False
    with open(open_regular(entry.path), "rb") as file:  # noqa: PTH123
        text = file.read(POINTER_BYTES).decode(errors="replace")
    stem = re.escape(name.partition(".")[0])
    number = re.search(r"\d+(?!.*\d)", name)
    # Megatron notes the step alone.
    alone = number is not None and text.strip().isdecimal() and int(text) == int(number[0])
    return alone or re.search(rf"(?<![\w-]){stem}(?![\w-])", text) is not None


def _best_of(folder: Path) -> str | None:
    """Return the name of what the Hugging Face Trainer would load as the best. Raises OSError."""
    state = folder / "trainer_state.json"
    if not state.is_file() or state.stat().st_size > STATE_BYTES:
        return None
    with open(open_regular(state), "rb") as file:  # noqa: PTH123
        try:
            best = msgspec.json.decode(file.read(), type=_TrainerState).best_model_checkpoint
        except msgspec.DecodeError:
            return None
    return Path(best).name if best is not None else None
