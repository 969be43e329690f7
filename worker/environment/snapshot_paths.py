"""Makes a segment run the code snapshot that was taken when the run was queued.

The leader still starts in the user's directory, so that its outputs land where they always do. Paths to code are
rewritten to the snapshot: the program, the script and the configurations among its arguments, PYTHONPATH, and for `-m`
the directory itself.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_regular
from backprop.scheduler.spec import RunSpec

ARGUMENT_SUFFIXES: Final = (
    *(".py", ".sh", ".bash", ".ipynb"),
    *(".yaml", ".yml", ".json", ".jsonc", ".toml", ".ini", ".cfg", ".conf", ".gin", ".jsonnet", ".libsonnet"),
)
"""Arguments with these suffixes are taken for code or configuration. Others are data or outputs."""
NAMES_AN_OUTPUT: Final = re.compile(r"-+(?:o$|out|save|log|result|report|export|dump|write|dest|metric)")
"""Options that name a file which the script writes: it must not land in the snapshot."""
MODULE_OPTIONS: Final = frozenset(("-m", "--module"))


class _Origin(msgspec.Struct):
    root: str


class SnapshotCommand(msgspec.Struct, frozen=True):
    """What to start. `environment`: overrides the run's own."""

    spec: RunSpec
    environment: Mapping[str, str]


def snapshot_command(spec: RunSpec, shell: Mapping[str, str]) -> SnapshotCommand:
    """Return the run's specification with its paths rewritten to its snapshot; unchanged without one.

    `shell`: the run's own environment. Raises OSError when the snapshot is gone or damaged.
    """
    if spec.code is None:
        return SnapshotCommand(spec, {})
    mapper = PathMapper(Path(spec.cwd), original_root(Path(spec.code)), Path(spec.code))
    script = mapper.file(spec.script) if spec.script else None
    words = [mapper.word(word, before) for before, word in zip(("", *spec.argv), spec.argv, strict=False)]
    # The resume option is searched in the script's text: in the text that will run.
    rewritten = msgspec.structs.replace(
        spec,
        program=mapper.file(spec.program) or spec.program,
        argv=tuple(words),
        script=script or spec.script,
    )
    return SnapshotCommand(
        rewritten, {"BACKPROP_CODE": spec.code, **_python_path(mapper, spec, script, shell)}
    )


class PathMapper:
    """Rewrites paths of the original to paths of the snapshot."""

    def __init__(self, cwd: Path, root: Path, code: Path) -> None:
        self._cwd, self._root, self._code = cwd, root, code
        self._real_code = os.path.realpath(code)

    def file(self, path: str) -> str | None:
        """Return the copy of a file; None when the file was not copied (what is only linked stays the user's)."""
        copy = self._copy_of(path)
        return str(copy) if copy is not None and copy.is_file() else None

    def folder(self, path: str) -> str | None:
        """Return the copy of a folder; None when it was not copied."""
        copy = self._copy_of(path)
        return str(copy) if copy is not None and copy.is_dir() else None

    def word(self, word: str, before: str) -> str:
        """Return an argument, rewritten if it names copied code: `conf.yaml` or `--config=conf.yaml`.

        `before`: the argument ahead of it.
        """
        option, equals, value = word.partition("=")
        for ahead, path in ((before, word), (option, value) if equals else ("", "")):
            is_output = ahead.startswith("-") and NAMES_AN_OUTPUT.match(ahead.lower())
            if Path(path).suffix.lower() in ARGUMENT_SUFFIXES and not is_output and (copy := self.file(path)):
                return word.removesuffix(path) + copy
        return word

    def _copy_of(self, path: str) -> Path | None:
        written = os.path.normpath(self._cwd / path)
        for original in (Path(written), Path(os.path.realpath(written))):
            if original.is_relative_to(self._root):
                copy = self._code / original.relative_to(self._root)
                # What is only linked leads out of the snapshot.
                return copy if Path(os.path.realpath(copy)).is_relative_to(self._real_code) else None
        return None


def original_root(code: Path) -> Path:
    """Return where the original of a snapshot is. Raises OSError."""
    path = code.with_name("code.json")
    try:
        return Path(msgspec.json.decode(read_regular(path), type=_Origin).root)
    except msgspec.DecodeError as error:
        raise OSError(f"{path} is damaged: {error}") from error


def _python_path(
    mapper: PathMapper, spec: RunSpec, script: str | None, shell: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that lead Python's imports to the snapshot.

    A script finds its siblings by its own path. A module is searched in the directory it is started in, which is the
    original's: PYTHONSAFEPATH removes that (since Python 3.11), and the snapshot's comes first.
    """
    given = shell.get("PYTHONPATH", "")
    entries = [mapper.folder(entry) or entry for entry in given.split(os.pathsep)] if given else []
    before_script = spec.argv if spec.script is None else spec.argv[: _script_index(spec)]
    if MODULE_OPTIONS.isdisjoint(before_script):
        return {"PYTHONPATH": os.pathsep.join(entries)} if entries else {}
    # PYTHONSAFEPATH is inherited: what the module starts (`-m torch.distributed.run train.py`) needs its folder too.
    first = [mapper.folder(spec.cwd), str(Path(script).parent) if script else None]
    return {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*filter(None, first), *entries])),
    }


def _script_index(spec: RunSpec) -> int:
    """Return the index of the script among the arguments; a `-m` after it is not Python's."""
    cwd = Path(spec.cwd)
    return next((at for at, word in enumerate(spec.argv) if str(cwd / word) == spec.script), len(spec.argv))
