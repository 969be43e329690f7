"""Chooses the checkpoint that the next segment resumes from, and builds the arguments that tell the script.

A chain never silently restarts from zero: when checkpoints were announced and none of them is good any more, the
answer is a refusal, not a fresh start.
"""

import os
import shlex
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import msgspec

from backprop.scheduler.home.file_reading import open_regular
from backprop.scheduler.recipes.plan import announces, declares_resume_from
from backprop.scheduler.records import CheckpointRecord, RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.worker.checkpoints.validation import newest_good
from backprop.worker.environment.presence import Absence, checkpoint_away, trouble_with

if TYPE_CHECKING:
    from backprop.worker.checkpoints.backups import Backup

SCRIPT_LIMIT_BYTES: Final = 1 << 20


class StartPoint(msgspec.Struct, frozen=True):
    """What the next segment begins from.

    `checkpoint`: absolute path to resume from, None for a start from zero. `passed_over`: broken newer ones, each with
    why. `problem`: why the run cannot go on as it is; then nothing may be started. `gone`: files whose return could
    solve it. `waits_for`: what has to come back before anything can be said. `restore`: a backup whose original is
    torn, older or gone. `set_aside`: broken checkpoints to rename. Both are done before the segment starts, with the
    run's lock held. `shared`: another run writes the same file, so that a repair may be needed each time.
    `holds_objects`: the run itself saved more in it than `torch.load` takes without leave.
    """

    checkpoint: str | None = None
    passed_over: tuple[str, ...] = ()
    problem: str | None = None
    gone: tuple[str, ...] = ()
    waits_for: Absence | None = None
    restore: "Backup | None" = None
    set_aside: tuple[str, ...] = ()
    shared: bool = False
    holds_objects: bool = False

    @property
    def needs_repair(self) -> bool:
        return self.restore is not None or bool(self.set_aside)


def choose(run: RunRecord, saved: Sequence[CheckpointRecord], mounts: Collection[str] = ()) -> StartPoint:
    """Choose the newest good checkpoint of `saved` (newest first), else where the user said to begin.

    A newer one whose folder or disk is away is waited for. `mounts`: that the run has used. Reads the files. Raises
    OSError when out of resources.
    """
    # One that is overwritten was announced many times: the newest record of a path is enough.
    newest: dict[str, CheckpointRecord] = {}
    for record in usable(run, saved):
        newest.setdefault(record.path, record)
    good, broken = newest_good(list(newest.values()), run.spec.plan.needs if run.spec.plan else ())
    passed_over = tuple(f"{record.path}: {why}" for record, why in broken)
    for record, _ in broken:
        if (away := checkpoint_away(record.path, mounts, newest)) is not None:
            return StartPoint(waits_for=away)
    if good is not None:
        return StartPoint(good.path, passed_over)
    if broken:
        return StartPoint(
            problem=f"none of its checkpoints is good any more ({'; '.join(passed_over[:3])}); {_advice(run)}",
            gone=tuple(record.path for record, _ in broken if trouble_with(record.path) is not None),
        )
    initial = initial_checkpoint(run)
    if not initial or trouble_with(initial) is None:
        return StartPoint(initial or None)
    if (away := checkpoint_away(initial, mounts)) is not None:
        return StartPoint(waits_for=away)
    why = f"the checkpoint to resume from is gone: {initial}; {_advice(run)}"
    return StartPoint(problem=why, gone=(initial,))


def usable(run: RunRecord, saved: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """Return those of `saved` that a resume may take: not refused, and of a segment that counts.

    What was found where nothing had named it counts only while the run has announced none, and its plan found none. Of
    those, first what has a name that its plan expects elsewhere.
    """
    since = first_segment(run)
    good = [record for record in saved if record.refused is None and record.segment >= since]
    told = [record for record in good if not record.observed]
    if told:
        return told
    names = [pattern.rpartition("/")[2] for pattern in (run.spec.plan.globs if run.spec.plan else ())]
    alike = [
        record for record in good if any(fnmatchcase(PurePath(record.path).name, name) for name in names)
    ]
    return alike or good


def announces_its_saves(spec: RunSpec) -> bool:
    """Return whether the script's own text speaks our protocol. Reads the script."""
    return announces(_text(spec.script))


def can_hand_back(spec: RunSpec) -> bool:
    """Return whether the next segment can be told of a checkpoint, or is known to find it. Reads the script."""
    plan = spec.plan
    if spec.resume_arg not in ("auto", "none"):
        return True
    if plan is not None and (
        plan.resumes in ("append", "rerun") or (plan.resumes == "unknown" and plan.globs)
    ):
        return True
    if plan is not None and plan.resumes == "none":
        return spec.attaches
    return (plan is not None and plan.speaks != "") or takes_resume_from(spec.script)


def first_segment(run: RunRecord) -> int:
    """Return the number of the first segment whose checkpoints count.

    Once the user has said where to begin again, only newer ones do: `resume --from-scratch` that fell back on an older
    checkpoint would not be from scratch.
    """
    return 0 if run.resume_pin is None else run.chain_start + 1


def initial_checkpoint(run: RunRecord) -> str | None:
    """Return what the chain begins from while it has no checkpoint of its own; None for zero."""
    return run.spec.resume_from if run.resume_pin is None else run.resume_pin or None


def command_line(spec: RunSpec, checkpoint: str | None) -> tuple[str, ...]:
    """Return the leader's arguments.

    Something is added only for a script that asks for it: by its recipe, or by an option of its own.
    """
    if checkpoint is None or spec.resume_arg == "none":
        return spec.argv
    if spec.resume_arg != "auto":
        words = shlex.split(spec.resume_arg)
        return (*spec.argv, *(word.replace("{checkpoint}", checkpoint) for word in words))
    plan = spec.plan
    if plan is not None and plan.resumes != "unknown":
        words = [word.replace("{checkpoint}", checkpoint) for word in plan.resume_words]
        at = len(spec.argv) if plan.resume_at is None else plan.resume_at
        return (*spec.argv[:at], *words, *spec.argv[at:])
    if takes_resume_from(spec.script):
        return (*spec.argv, "--resume-from", checkpoint)
    return spec.argv


def picks_itself(spec: RunSpec) -> bool:
    """Return whether the script looks for its newest checkpoint on its own, so that a broken one must be set aside.

    A script that is told no path cannot do otherwise.
    """
    plan = spec.plan
    if plan is None or plan.resumes == "none":
        return False
    placeholder = "{checkpoint}"
    return not any(placeholder in word for word in command_line(spec, placeholder))


def takes_resume_from(script: str | None) -> bool:
    """Return whether the script's own text declares `--resume-from`. False when it cannot be read."""
    return declares_resume_from(_text(script))


def _text(script: str | None) -> bytes:
    if script is None:
        return b""
    try:
        with os.fdopen(open_regular(script), "rb") as file:
            return file.read(SCRIPT_LIMIT_BYTES)
    except OSError:
        return b""


def _advice(run: RunRecord) -> str:
    return f"backprop resume {run.id} --resume-from PATH, or --from-scratch"
