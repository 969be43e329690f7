"""Says under which Python a script will run, where that is not obvious, and what that Python lacks.

All looks together are bounded: one that hangs is left behind, and nothing is said.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.spec import RunSpec
from backprop.worker.environment import script_imports
from backprop.worker.environment.installed_packages import venv_of
from backprop.worker.user_files import within

PATIENCE_S: Final = 0.5
SHOWN: Final = 4
FOLDERS: Final = (".venv", "venv")
ACTIVATED: Final = ("VIRTUAL_ENV", "CONDA_PREFIX")


class Findings(msgspec.Struct, frozen=True):
    """`notes`: what to know. `warnings`: what will make the run fail. One line each."""

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def examine(spec: RunSpec, environment: Mapping[str, str], chosen: bool) -> Findings:
    """Look at the Python of a run's script. `environment`: the run's. `chosen`: the user named it. Raises nothing."""
    if spec.script is None or not spec.script.endswith(".py"):
        return Findings()
    script = Path(spec.script)
    try:
        return within(PATIENCE_S, lambda: _examine(spec, script, environment, chosen))
    except (OSError, RuntimeError):
        return Findings()


def _examine(spec: RunSpec, script: Path, environment: Mapping[str, str], chosen: bool) -> Findings:
    cwd = Path(spec.cwd)
    ours = not chosen and spec.argv[0] == spec.program
    note = _other_python(script.name, Path(spec.program), cwd, environment) if ours else None
    missing = script_imports.lacking(script, spec.program, cwd, environment)
    if not missing:
        return Findings((note,) if note else ())
    names = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
    own = "Backprop's own environment, " if script_imports.is_own(spec.program) else ""
    warning = (
        f"{script.name} imports {names}, not found in {own}{spec.program}; activate the environment that it needs,"
        " or name its Python: --python PATH"
    )
    return Findings((note,) if note else (), (warning,))


def _other_python(name: str, program: Path, cwd: Path, environment: Mapping[str, str]) -> str | None:
    """Return a note where another environment than that of this Python is activated, or lies in the directory."""
    active = [Path(environment[key]) for key in ACTIVATED if environment.get(key)]
    if any(_is_of(program, each) for each in active):
        return None
    if active:
        return f"{name} runs under {program}, not the activated {active[0]}"
    beside = next((cwd / each for each in FOLDERS if (cwd / each / "pyvenv.cfg").is_file()), None)
    if beside is None or _is_of(program, beside):
        return None
    return f"{name} runs under {program}, not {beside.name} of this directory: --python {beside / 'bin' / 'python'}"


def _is_of(program: Path, prefix: Path) -> bool:
    own = venv_of(program) or program.resolve().parent.parent
    return own.resolve() == prefix.resolve()
