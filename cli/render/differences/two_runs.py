"""Finds out in what two runs differ: code, arguments, environment, packages, settings, last metrics."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec

from backprop.cli.render.differences import masking, note_view
from backprop.cli.render.differences.arguments import by_name
from backprop.scheduler.home import batch_file
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.environment import snapshot_paths
from backprop.worker.environment.provenance import notes
from backprop.worker.environment.provenance.differences import (
    CodeDifference,
    DifferingFile,
    Side,
    Trees,
    compare,
    patch_between,
)
from backprop.worker.environment.provenance.notes import Noted

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database

CHECKPOINTS: Final = (
    *("checkpoint_every_s", "checkpoint_roots", "auto_resume", "resume_arg", "resume_from", "integrations"),
)
"""Settings about what is saved and how it is resumed, beside the plan."""
NOT_SETTINGS: Final = ("argv", "plan", "key", "asked", "params", "code", *CHECKPOINTS)
OF_SHELL: Final = ("_", "SHLVL", "OLDPWD")
"""Variables that differ from one command to the next and mean nothing."""
MOST_PATCH_BYTES: Final = 1 << 20

Section = Literal["arguments", "environment", "packages", "checkpoints", "settings", "metrics"]


class Difference(msgspec.Struct, frozen=True):
    """One value of a name. None: not there. `hidden`: it looks like a credential, and is not given."""

    name: str
    a: str | None
    b: str | None
    hidden: bool = False


class FileDifference(msgspec.Struct, frozen=True):
    """How one file differs. `patch` None: not shown, for the reason in `unknown`."""

    file: DifferingFile
    patch: bytes | None
    unknown: str | None


class TwoRuns(msgspec.Struct, frozen=True):
    """In what runs A and B differ. `notes`: what is known of their code. `code` None: one of them has no note.
    `unknown`: what of a section could not be compared, in words."""

    a: RunRecord
    b: RunRecord
    notes: tuple[Noted | None, Noted | None]
    code: CodeDifference | None
    files: tuple[FileDifference, ...]
    sections: dict[Section, list[Difference]]
    unknown: dict[Section, str]


def differences(home: Home, database: "Database", a: RunRecord, b: RunRecord, *, contents: bool) -> TwoRuns:
    """Compare two runs. `contents`: also how their files differ."""
    from backprop.scheduler.store.reads import metrics

    noted = note_view.note_of(home, a), note_view.note_of(home, b)
    code, files = _code(a, b, noted, contents)
    last = metrics.latest_of_each(database, [a.id, b.id])
    packages, why_not = _packages(home, noted)
    environments = [batch_file.environment_of(home, run) for run in (a, b)]
    unknown: dict[Section, str] = {"packages": why_not} if why_not is not None else {}
    lacking = [name for name, found in zip("AB", environments, strict=True) if not found]
    if lacking:
        unknown["environment"] = f"that of {' and '.join(lacking)} is gone"
    return TwoRuns(
        a,
        b,
        noted,
        code,
        files,
        {
            "arguments": _between(*(by_name(_arguments(run.spec)) for run in (a, b))),
            "environment": [] if lacking else _between(*environments, without=OF_SHELL),
            "packages": packages,
            "checkpoints": _between(*(_checkpoints(run.spec) for run in (a, b))),
            "settings": _between(*(_settings(run.spec) for run in (a, b))),
            "metrics": _between(
                *({name: f"{value:.6g}" for name, value in last[run.id].items()} for run in (a, b))
            ),
        },
        unknown,
    )


def _code(
    a: RunRecord, b: RunRecord, noted: tuple[Noted | None, Noted | None], contents: bool
) -> tuple[CodeDifference | None, tuple[FileDifference, ...]]:
    one, other = noted
    if one is None or other is None:
        return None, ()
    trees = Trees(one.provenance.root, other.provenance.root)
    code = compare(one.provenance, other.provenance, trees)
    if not contents:
        return code, tuple(FileDifference(file, None, None) for file in code.files)
    sides = [Side(each, _snapshot(each, run.spec), trees) for each, run in ((one, a), (other, b))]
    left = MOST_PATCH_BYTES
    found: list[FileDifference] = []
    for file in code.files:
        patch, why = _patch(lambda file=file: patch_between(file, sides[0], sides[1]))
        if patch is not None and len(patch) > left:
            patch, why = None, "there is too much to show"
        left -= len(patch or b"")
        found.append(FileDifference(file, patch, why))
    return code, tuple(found)


def _snapshot(noted: Noted, spec: RunSpec) -> Path | None:
    """Return where a run's snapshot has the root of its note; None without one."""
    if spec.code is None:
        return None
    code, root = Path(spec.code), Path(noted.provenance.root)
    try:
        original = snapshot_paths.original_root(code)
    except OSError:
        return None
    return code / root.relative_to(original) if root.is_relative_to(original) else None


def _patch(make: Callable[[], bytes]) -> tuple[bytes | None, str | None]:
    try:
        return make(), None
    except LookupError as error:
        return None, str(error.args[0]) if error.args else "not known"


def _arguments(spec: RunSpec) -> tuple[str, ...]:
    """Return the words behind the program, the script first if it is one of them."""
    return spec.argv[1:]


def _packages(home: Home, noted: tuple[Noted | None, Noted | None]) -> tuple[list[Difference], str | None]:
    lists: list[dict[str, str]] = []
    for name, each in zip("AB", noted, strict=True):
        python = each.provenance.python if each is not None else None
        if python is None or python.packages is None:
            return [], f"those of {name} are not known"
        listed = notes.read_packages(home, python.packages.digest)
        if listed is None:
            return [], f"the list of those of {name} is gone"
        lists.append({"Python": python.version or "not known", "Python's path": python.path} | listed)
    return _between(*lists), None


def _checkpoints(spec: RunSpec) -> dict[str, str]:
    plan = spec.plan or Plan()
    shown = (
        "recipe",
        "globs",
        "needs",
        "in_place",
        "resumes",
        "resume_words",
        "saves_on_signal",
        "integration",
    )
    return _texts(spec, CHECKPOINTS) | {f"plan.{name}": text for name, text in _texts(plan, shown).items()}


def _settings(spec: RunSpec) -> dict[str, str]:
    names = [name for name in spec.__struct_fields__ if name not in NOT_SETTINGS]
    return _texts(spec, names) | {"snapshot": "yes" if spec.code is not None else "no"}


def _texts(values: msgspec.Struct, names: "list[str] | tuple[str, ...]") -> dict[str, str]:
    found: dict[str, Any] = {name: getattr(values, name) for name in names}
    return {name: _text(value) for name, value in found.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, cast("tuple[object, ...]", value))) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in cast("dict[str, object]", value).items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _between(
    a: Mapping[str, str], b: Mapping[str, str], *, without: tuple[str, ...] = ()
) -> list[Difference]:
    """Return the names whose values differ, in their order. A value that looks like a credential is left out."""
    found: list[Difference] = []
    for name in dict.fromkeys((*a, *b)):
        one, other = a.get(name), b.get(name)
        if one == other or name in without:
            continue
        if masking.looks_secret(name, one) or masking.looks_secret(name, other):
            sides = (masking.HIDDEN if value is not None else None for value in (one, other))
            found.append(Difference(name, *sides, hidden=True))
        else:
            found.append(Difference(name, one, other))
    return found
