"""A run's folder: `runs/<id>/spec.json`, enough to put the run back into an empty database and to start it."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home import Home
from backprop.scheduler.spec import FORMAT, RunSpec

ID_TRIES: Final = 20


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
    """Write `spec.json` (0600) and sync it with its folder. Raises OSError.

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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(folder / "spec.json", flags, 0o600)
    with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123
        json.dump(body, file)
        file.flush()
        os.fsync(handle)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove(folder: Path) -> None:
    """Take back a folder whose run was never queued."""
    shutil.rmtree(folder, ignore_errors=True)
