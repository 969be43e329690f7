"""Which code does a segment run? The snapshot taken when the run was queued, if one was.

The leader starts in the user's directory all the same, so that its outputs land where they always do; what leads to
code is turned to the copy: the program, the script and the configurations among its arguments, PYTHONPATH, and for
`-m` the directory itself.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.spec import RunSpec

ARGUMENT_SUFFIXES: Final = (
    *(".py", ".sh", ".bash", ".ipynb"),
    *(".yaml", ".yml", ".json", ".jsonc", ".toml", ".ini", ".cfg", ".conf", ".gin", ".jsonnet", ".libsonnet"),
)
"""Arguments with these names are taken for code or configuration. Others are data or outputs."""
NAMES_AN_OUTPUT: Final = re.compile(r"-+(?:o$|out|save|log|result|report|export|dump|write|dest|metric)")
"""An option whose file the script writes: it must not land in the copy."""
MODULE_OPTIONS: Final = frozenset(("-m", "--module"))


class _Origin(msgspec.Struct):
    root: str


@dataclass(frozen=True)
class SnapshotCommand:
    """What to start. `environment`: over the run's own."""

    spec: RunSpec
    environment: Mapping[str, str]


def snapshot_command(spec: RunSpec, shell: Mapping[str, str]) -> SnapshotCommand:
    """The run's specification with its paths turned to its snapshot; unchanged without one.

    `shell`: the run's own environment. Raises OSError when the snapshot is gone or damaged.
    """
    if spec.code is None:
        return SnapshotCommand(spec, {})
    turn = PathMapper(Path(spec.cwd), _root(Path(spec.code)), Path(spec.code))
    script = turn.file(spec.script) if spec.script else None
    words = [turn.word(word, before) for before, word in zip(("", *spec.argv), spec.argv, strict=False)]
    # The resume option is looked for in the script's text: in the text that will run.
    told = msgspec.structs.replace(
        spec,
        program=turn.file(spec.program) or spec.program,
        argv=tuple(words),
        script=script or spec.script,
    )
    return SnapshotCommand(told, {"BACKPROP_CODE": spec.code, **_python_path(turn, spec, script, shell)})


class PathMapper:
    """Turns paths of the original into paths of the copy."""

    def __init__(self, cwd: Path, root: Path, code: Path) -> None:
        self._cwd, self._root, self._code = cwd, root, code
        self._real_code = os.path.realpath(code)

    def file(self, path: str) -> str | None:
        """The copy of a file, itself copied; None for anything else (what is only linked stays the user's)."""
        found = self._inside(path)
        return str(found) if found is not None and found.is_file() else None

    def folder(self, path: str) -> str | None:
        found = self._inside(path)
        return str(found) if found is not None and found.is_dir() else None

    def word(self, word: str, before: str) -> str:
        """One argument, `before` being the one ahead of it: `conf.yaml` or `--config=conf.yaml`."""
        option, equals, value = word.partition("=")
        for ahead, path in ((before, word), (option, value) if equals else ("", "")):
            outputs = ahead.startswith("-") and NAMES_AN_OUTPUT.match(ahead.lower())
            if Path(path).suffix.lower() in ARGUMENT_SUFFIXES and not outputs and (copy := self.file(path)):
                return word.removesuffix(path) + copy
        return word

    def _inside(self, path: str) -> Path | None:
        written = os.path.normpath(self._cwd / path)
        for at in (Path(written), Path(os.path.realpath(written))):
            if at.is_relative_to(self._root):
                copy = self._code / at.relative_to(self._root)
                # What is only linked leads out of the copy.
                return copy if Path(os.path.realpath(copy)).is_relative_to(self._real_code) else None
        return None


def _root(code: Path) -> Path:
    """Where the original of a snapshot is."""
    path = code.with_name("code.json")
    try:
        return Path(msgspec.json.decode(path.read_bytes(), type=_Origin).root)
    except msgspec.DecodeError as error:
        raise OSError(f"{path} is damaged: {error}") from error


def _python_path(
    turn: PathMapper, spec: RunSpec, script: str | None, shell: Mapping[str, str]
) -> dict[str, str]:
    """A script finds its siblings by its own path. A module is looked for in the directory it is started in, which is
    the original's: PYTHONSAFEPATH takes that away (since Python 3.11), and the copy's stands first."""
    given = shell.get("PYTHONPATH", "")
    entries = [turn.folder(entry) or entry for entry in given.split(os.pathsep)] if given else []
    before_script = spec.argv if spec.script is None else spec.argv[: _place(spec)]
    if MODULE_OPTIONS.isdisjoint(before_script):
        return {"PYTHONPATH": os.pathsep.join(entries)} if entries else {}
    # PYTHONSAFEPATH is inherited: what the module starts (`-m torch.distributed.run train.py`) needs its folder too.
    first = [turn.folder(spec.cwd), str(Path(script).parent) if script else None]
    return {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*(one for one in first if one), *entries])),
    }


def _place(spec: RunSpec) -> int:
    """Where the script stands among the arguments; its own `-m` is none of Python's."""
    cwd = Path(spec.cwd)
    return next((at for at, word in enumerate(spec.argv) if str(cwd / word) == spec.script), len(spec.argv))
