"""Reads and writes a run's folder, `runs/<id>/`: enough to put the run back into an empty database and to start it.

    spec.json       what to run, with the environment of the shell that queued it (0600)
    outcome.json    its final state; missing while it is not final
    <segment>/      order.json, log, events.jsonl, processes.json, stop.json, exit.json of each segment

Each file is written under a temporary name, synced and renamed: a crash leaves the old file or the new one.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home.file_reading import is_there, open_draft, read_if_there, read_regular
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import GroupRules, QueuePosition, RunSpec

ID_TRIES: Final = 20
FORMAT: Final = 1


class SpecFile(msgspec.Struct, frozen=True, kw_only=True):
    """`spec.json`, without its environment. `place`: its first position in the queue. `group`: the rules it was
    submitted with for its group. `batch`: the runs it was queued together with, see `batch_file`. `scrubbed`: variables
    whose values were removed, see `scrubbing`."""

    id: str
    name: str
    created_at_s: float
    spec: RunSpec
    place: QueuePosition = QueuePosition()
    group: GroupRules | None = None
    batch: str | None = None
    scrubbed: tuple[str, ...] = ()


class OutcomeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome.json`: the final state of a run after its segment number `segment`."""

    state: str
    reason: str
    segment: int
    ended_at_s: float


def create(home: Home, wanted: str | None, share: str | None = None) -> tuple[str, Path]:
    """Create the empty folder of a new run; return the run's id and the folder. `wanted`: the id, None for a random
    one. `share`: see `RunSpec`. Raises BadCommand when it is taken, OSError."""
    for _ in range(ID_TRIES):
        run_id = wanted or os.urandom(4).hex()
        folder = home.run_folder(run_id)
        try:
            make(home, run_id, share)
        except FileExistsError as error:
            if wanted is not None:
                raise BadCommand(
                    f"a run with the id {wanted} exists; choose another --run-id, or: backprop resume {wanted}"
                ) from error
        else:
            return run_id, folder
    raise BadCommand(f"no free id found in {home.runs}")


def make(home: Home, run_id: str, share: str | None) -> None:
    """Create a run's folder; on a share as a link to what lies there. Raises FileExistsError, OSError."""
    if share is None:
        home.run_folder(run_id).mkdir(mode=0o700)
        return
    from backprop.scheduler.home import shared_folder  # few runs go to a cluster

    shared_folder.make(home, run_id, share)


def write_spec(
    folder: Path,
    run_id: str,
    name: str,
    spec: RunSpec,
    environment: Mapping[str, str],
    now_s: float,
    place: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
    group: GroupRules | None = None,
) -> None:
    """Write `spec.json`. Raises OSError."""
    content = SpecFile(id=run_id, name=name, created_at_s=now_s, spec=spec, place=place, group=group)
    _write(folder / "spec.json", _body(content, environment))


def write_first(folder: Path, content: SpecFile, environment: Mapping[str, str]) -> None:
    """Write `spec.json` unless it exists. Of several processes that do so at once one wins, and a later change of the
    file is not undone. Raises OSError."""
    draft = folder / f"spec.json.{os.getpid()}"
    write_synced(draft, (_json(_body(content, environment)),))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, folder / "spec.json", follow_symlinks=False)
    finally:
        draft.unlink(missing_ok=True)
    sync(folder)


def _body(content: SpecFile, environment: Mapping[str, str]) -> dict[str, Any]:
    return {"format": FORMAT, **msgspec.to_builtins(content), "environment": dict(environment)}


def change_spec(
    folder: Path,
    spec: RunSpec,
    name: str | None = None,
    priority: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Change the specification in `spec.json`, and the name and priority unless they are None. `environment`:
    variables to add to those in the file. Raises OSError, ValueError."""
    body = json.loads(read_regular(folder / "spec.json"))
    changed: dict[str, Any] = {"spec": msgspec.to_builtins(spec)}
    if name is not None:
        changed["name"] = name
    if priority is not None:
        place = msgspec.convert(body.get("place", {}), QueuePosition)
        changed["place"] = msgspec.to_builtins(msgspec.structs.replace(place, priority=priority))
    if environment:
        changed["environment"] = body["environment"] | dict(environment)
        changed["scrubbed"] = [name for name in body.get("scrubbed", ()) if name not in environment]
    _write(folder / "spec.json", body | changed)


def restore_spec(folder: Path, content: bytes, name: str = "spec.json") -> None:
    """Give `spec.json`, or another file, the bytes it is to hold. Raises OSError."""
    _replace(folder / name, content)


def read_spec(folder: Path) -> SpecFile | None:
    """Return the content of `spec.json`; None when it is missing or damaged. Raises OSError."""
    content = read_if_there(folder / "spec.json")
    try:
        return msgspec.convert(json.loads(content), SpecFile) if content is not None else None
    except ValueError:
        return None


def write_outcome(folder: Path, outcome: OutcomeFile, *, synced: bool = True) -> None:
    """Write `outcome.json`. `synced`: it is on disk on return. Raises OSError."""
    _write(folder / "outcome.json", msgspec.to_builtins(outcome), synced=synced)


def read_outcome(folder: Path) -> OutcomeFile | None:
    """Return the content of `outcome.json`; None when it is missing or damaged. Raises OSError."""
    content = read_if_there(folder / "outcome.json")
    try:
        return msgspec.json.decode(content, type=OutcomeFile) if content is not None else None
    except msgspec.DecodeError:
        return None


def clear_outcome(folder: Path) -> None:
    """Delete `outcome.json`, because the run is resumed. Raises OSError."""
    (folder / "outcome.json").unlink(missing_ok=True)


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments that were ordered, ascending. Raises OSError."""
    return sorted(
        int(path.name) for path in folder.iterdir() if path.name.isdecimal() and is_there(path / "order.json")
    )


def newest_segment(folder: Path) -> int:
    """Return the number of the last segment that was ordered; 0 for none. Raises OSError."""
    return max(segment_numbers(folder), default=0)


def read_environment(folder: Path) -> dict[str, str]:
    """Return the environment of the shell that queued the run; empty when its folder is damaged. Raises OSError."""
    try:
        environment = json.loads(read_if_there(folder / "spec.json") or b"{}")["environment"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(value) for name, value in environment.items()}


def remove(folder: Path) -> None:
    """Delete a folder whose run was never queued. Raises nothing."""
    import shutil  # here: it loads all compressors, for one command in a thousand

    shutil.rmtree(folder, ignore_errors=True)


def write_synced(path: Path, chunks: Iterable[bytes], *, synced: bool = True) -> None:
    """Write a file that no other process writes. `synced`: it is on disk on return. Raises OSError."""
    with open(open_draft(path), "wb") as file:  # noqa: PTH123
        file.writelines(chunks)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Sync the names in a folder to disk. Raises OSError."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(path: Path, body: Mapping[str, Any], *, synced: bool = True) -> None:
    _replace(path, _json(body), synced=synced)


def _replace(path: Path, content: bytes, *, synced: bool = True) -> None:
    temporary = path.with_name(path.name + ".tmp")
    write_synced(temporary, (content,), synced=synced)
    temporary.replace(path)
    if synced:
        sync(path.parent)


def _json(body: Mapping[str, Any]) -> bytes:
    """The standard library writes bytes that are not UTF-8 as escapes and reads them back unchanged; msgspec refuses
    them."""
    return json.dumps(body).encode("ascii")
