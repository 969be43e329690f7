"""What does the next segment resume from, and how is the script told?

A chain must never silently restart from zero: when checkpoints were announced and none of them is good any more,
the answer is a refusal, not a fresh start.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backprop.scheduler.records import CheckpointRecord, RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.worker.checkpoints.validation import CheckpointFile, newest_good

RESUME_OPTION: Final = re.compile(r"""(['"])--resume-from\1""")
"""The option as a script that declares it writes it: a quoted word of its own."""
SCRIPT_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class ResumeChoice:
    """`checkpoint`: absolute path to resume from, None for a start from zero. `passed_over`: broken newer ones,
    each with why. `problem`: why the run cannot go on as it is; then nothing may be started."""

    checkpoint: str | None = None
    passed_over: tuple[str, ...] = ()
    problem: str | None = None


def choose(run: RunRecord, saved: Sequence[CheckpointRecord]) -> ResumeChoice:
    """Pick the newest good checkpoint of `saved` (newest first), else where the user said to begin. Reads the files."""
    # One that is overwritten was announced many times: the newest word on a path is enough.
    newest: dict[str, CheckpointFile] = {}
    for record in usable(run, saved):
        newest.setdefault(record.path, known_of(record))
    good, broken = newest_good(list(newest.values()), run.spec.plan.needs if run.spec.plan else ())
    passed_over = tuple(f"{known.path}: {why}" for known, why in broken)
    if good is not None:
        return ResumeChoice(str(good.path), passed_over)
    if broken:
        return ResumeChoice(problem=_nothing_left(run, passed_over))
    start = start_of(run)
    return _given(run, start) if start else ResumeChoice()


def usable(run: RunRecord, saved: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """Those of `saved` that a resume may take: not refused and, once the user has said where to begin again, saved
    since then. `resume --from-scratch` that fell back on an older one would not be from scratch."""
    since = 0 if run.resume_pin is None else run.chain_start + 1
    return [record for record in saved if record.refused is None and record.segment >= since]


def start_of(run: RunRecord) -> str | None:
    """What the chain begins from while no checkpoint of its own is known; None for zero."""
    return run.spec.resume_from if run.resume_pin is None else run.resume_pin or None


def command_line(spec: RunSpec, checkpoint: str | None) -> tuple[str, ...]:
    """The leader's arguments. Nothing is added to a script that did not ask for it: by its recipe, or by an option of
    its own."""
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
    """Whether the script looks for its newest checkpoint on its own, so that a broken one must not lie in its way. One
    that is told nothing cannot do otherwise."""
    plan = spec.plan
    if plan is None or plan.resumes == "none":
        return False
    told = "{checkpoint}"
    return not any(told in word for word in command_line(spec, told))


def takes_resume_from(script: str | None) -> bool:
    """Whether the script's own text declares `--resume-from`. False when it cannot be read."""
    if script is None:
        return False
    try:
        with Path(script).open("rb") as file:
            text = file.read(SCRIPT_LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return False
    return RESUME_OPTION.search(text) is not None


def known_of(record: CheckpointRecord) -> CheckpointFile:
    return CheckpointFile(Path(record.path), record.size_bytes, record.mtime_ns, record.is_dir)


def _given(run: RunRecord, path: str) -> ResumeChoice:
    if Path(path).exists():
        return ResumeChoice(path)
    return ResumeChoice(problem=f"the checkpoint to resume from is gone: {path}; {_advice(run)}")


def _nothing_left(run: RunRecord, broken: tuple[str, ...]) -> str:
    return f"none of its checkpoints is good any more ({'; '.join(broken[:3])}); {_advice(run)}"


def _advice(run: RunRecord) -> str:
    return f"backprop resume {run.id} --resume-from PATH, or --from-scratch"
