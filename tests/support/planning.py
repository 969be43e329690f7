"""Plans a command by the text of its script, as `run` does."""

import glob
from pathlib import Path

from backprop.cli.submit.source_reader import DiskReader
from backprop.scheduler.recipes.plan import plan_for
from backprop.scheduler.spec import Plan, RunSpec

READER = DiskReader()


def planned(folder: Path, text: str, words: str = "python train.py", **more: object) -> Plan:
    """The plan for a command in `folder`, whose train.py has this text."""
    (folder / "train.py").write_text(text)
    argv = words.split()
    return plan_for(argv, argv[0], folder / "train.py", folder, READER, **more)  # type: ignore[arg-type]


def matching(pattern: str) -> list[str]:
    """As whoever watches a run looks for them: the patterns are absolute, which pathlib does not take."""
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


def spec(folder: Path, words: str, plan: Plan, resume_arg: str = "auto") -> RunSpec:
    argv = tuple(words.split())
    return RunSpec(argv=argv, program=argv[0], cwd=str(folder), plan=plan, resume_arg=resume_arg)
