"""A run's folder: `runs/<id>/`, enough to put the run back into an empty database and to start it.

    spec.json       what to run, with the environment of the shell that queued it (0600)
    outcome.json    its final state; missing while it is not final
    <segment>/      order.json, log, events.jsonl, processes.json, stop.json, exit.json of each segment

Written under a temporary name, synced and renamed: a crash leaves the old file or the new one.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home import Home
from backprop.scheduler.spec import RunSpec

ID_TRIES: Final = 20
FORMAT: Final = 1


class SpecFile(msgspec.Struct, frozen=True, kw_only=True):
    """`spec.json`, without its environment."""

    id: str
    name: str
    created_at_s: float
    spec: RunSpec


class OutcomeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome.json`: the final state a run had after its segment number `segment`."""

    state: str
    reason: str
    segment: int
    ended_at_s: float


def create(home: Home, wanted: str | None) -> tuple[str, Path]:
    """A new run's id and its empty folder. `wanted`: the id asked for. Raises BadCommand when it is taken."""
    for _ in range(ID_TRIES):
        run_id = wanted or os.urandom(4).hex()
        folder = home.run_folder(run_id)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError as error:
            if wanted is not None:
                raise BadCommand(
                    f"a run with the id {wanted} exists; choose another --run-id, or: backprop resume {wanted}"
                ) from error
        else:
            return run_id, folder
    raise BadCommand(f"no free id found in {home.runs}")


def write_spec(
    folder: Path, run_id: str, name: str, spec: RunSpec, environment: Mapping[str, str], now_s: float
) -> None:
    """Write `spec.json`. Raises OSError.

    The standard library's JSON writes what is not UTF-8 in an environment as escapes and reads it back the same;
    msgspec refuses it.
    """
    body = {
        "format": FORMAT,
        "id": run_id,
        "name": name,
        "created_at_s": now_s,
        "spec": msgspec.to_builtins(spec),
        "environment": dict(environment),
    }
    _write(folder / "spec.json", body)


def change_spec(folder: Path, spec: RunSpec) -> None:
    """Put a changed specification beside the environment that is there. Raises OSError, ValueError."""
    body = json.loads((folder / "spec.json").read_bytes())
    _write(folder / "spec.json", body | {"spec": msgspec.to_builtins(spec)})


def read_spec(folder: Path) -> SpecFile | None:
    """What the folder says of its run; None when it is damaged."""
    try:
        return msgspec.convert(json.loads((folder / "spec.json").read_bytes()), SpecFile)
    except (OSError, ValueError):
        return None


def write_outcome(folder: Path, outcome: OutcomeFile) -> None:
    """Write `outcome.json`. Raises OSError."""
    _write(folder / "outcome.json", msgspec.to_builtins(outcome))


def read_outcome(folder: Path) -> OutcomeFile | None:
    try:
        return msgspec.json.decode((folder / "outcome.json").read_bytes(), type=OutcomeFile)
    except (OSError, msgspec.DecodeError):
        return None


def clear_outcome(folder: Path) -> None:
    """The run goes on."""
    (folder / "outcome.json").unlink(missing_ok=True)


def segment_numbers(folder: Path) -> list[int]:
    """The segments that were ordered, in order."""
    return sorted(
        int(one.name) for one in folder.iterdir() if one.name.isdecimal() and (one / "order.json").exists()
    )


def newest_segment(folder: Path) -> int:
    """The last segment that was ordered; 0 for none. Raises OSError."""
    return max(segment_numbers(folder), default=0)


def read_environment(folder: Path) -> dict[str, str]:
    """The environment of the shell that queued the run; empty when its folder is damaged."""
    try:
        found = json.loads((folder / "spec.json").read_bytes())["environment"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def remove(folder: Path) -> None:
    """Take back a folder whose run was never queued."""
    shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, body: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(temporary, flags, 0o600)
    with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123
        json.dump(body, file)
        file.flush()
        os.fsync(handle)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
