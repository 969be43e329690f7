"""Reads the run list of the npm version, `~/.backprop/experiments.json`, and gives runs in its shape.

The file holds one object, id to record. Times are milliseconds since 1970; fields not listed here are ignored:

    {"exp-1": {"id": "exp-1", "name": "baseline", "scriptPath": "/w/train.py", "status": "completed",
               "lastCheckpoint": "out/2.pt", "checkpoints": ["out/1.pt", "out/2.pt"],
               "lastStep": 1200, "lastLoss": 0.31, "startTime": 1700000000000, "endTime": 1700000600000}}
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec

from backprop.scheduler.config.files import decode_text, parse_json, read_trusted, shown
from backprop.scheduler.errors import BadConfig
from backprop.scheduler.lifecycle import FINAL, HAS_PROCESSES
from backprop.scheduler.records import RunRecord

MAX_BYTES = 16 * 1024 * 1024
MAX_ID_CHARS = 64

_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
# Neither NUL nor half a UTF-16 pair, which JavaScript writes and SQLite cannot hold.
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=r"\A[^\x00\ud800-\udfff]*\Z")]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e14)]


class OriginalRun(msgspec.Struct, frozen=True):
    """One run of the npm version. `checkpoints`: paths as announced, oldest first. Times: Unix seconds.

    `id` is safe as a folder name: the original id where that is safe, else `safe_id` of it.
    """

    id: str
    name: str | None
    script_path: str
    state: Literal["completed", "failed", "timeboxed", "stopped"]
    checkpoints: tuple[str, ...]
    last_step: int | None
    last_loss: float | None
    started_s: float
    ended_s: float | None


class Skipped(msgspec.Struct, frozen=True):
    """A record that was not imported, by its id in the file, and why."""

    id: str
    why: str


class OriginalRuns(msgspec.Struct, frozen=True):
    """What the file holds, in its order."""

    runs: tuple[OriginalRun, ...]
    skipped: tuple[Skipped, ...]


class _Record(msgspec.Struct, rename="camel"):
    script_path: _Text
    status: Literal["running", "completed", "failed", "timeboxed", "stopped"]
    start_time: _Milliseconds
    end_time: _Milliseconds | None = None
    name: _Text | None = None
    last_checkpoint: _Text | None = None
    checkpoints: tuple[_Text, ...] | None = None
    last_step: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    last_loss: float | None = None


def read_original(path: Path) -> OriginalRuns | None:
    """Return the runs in file order and the records that could not be read; None if the file does not exist.

    Raises BadConfig for the file as a whole: not the user's own, over 16 MiB, not UTF-8, not a JSON object.
    """
    data = read_trusted(path, MAX_BYTES)
    if data is None:
        return None
    records = parse_json(path, decode_text(path, data))
    if not isinstance(records, dict):
        raise BadConfig(f"{path}: expected an object of runs by id; got {shown(records)}")
    runs: dict[str, OriginalRun] = {}
    skipped: list[Skipped] = []
    for written, record in cast("dict[str, object]", records).items():
        try:
            run = _run(safe_id(written), msgspec.convert(record, _Record))
        except ValueError as error:
            skipped.append(Skipped(written, str(error)))
            continue
        if runs.setdefault(run.id, run) is not run:
            skipped.append(Skipped(written, f"another run already has the id {run.id}"))
    return OriginalRuns(tuple(runs.values()), tuple(skipped))


def record_of(run: RunRecord, checkpoints: Sequence[str]) -> dict[str, object]:
    """Return a run as the npm version would store it.

    `checkpoints`: the paths of good ones, oldest first; one that was saved again counts where it was saved last. A run
    that is neither live nor ended has no status there; it becomes stopped, which may be resumed too.
    """
    state = run.state
    record: dict[str, object] = {
        "id": run.id,
        "name": run.name,
        "scriptPath": run.spec.script or run.spec.program,
        "status": state.value if state in FINAL else "running" if state in HAS_PROCESSES else "stopped",
        "checkpoints": list(dict.fromkeys(reversed(checkpoints)))[::-1],
        "startTime": round((run.started_at_s or run.created_at_s) * 1000),
    }
    optional = {
        "lastCheckpoint": checkpoints[-1] if checkpoints else None,
        "lastStep": run.last_step,
        "lastLoss": run.last_loss,
        "endTime": None if run.ended_at_s is None else round(run.ended_at_s * 1000),
    }
    return record | {name: value for name, value in optional.items() if value is not None}


def safe_id(written: str) -> str:
    """Return the same id if it is fit ([A-Za-z0-9._-], at most 64, not led by a dot or dash), else one made from it.

    The result depends on nothing else, and two ids that look alike stay two: a hash tells them apart.
    """
    if _SAFE_ID.fullmatch(written):
        return written
    digest = hashlib.sha256(written.encode(errors="surrogatepass")).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", written)[: MAX_ID_CHARS - 9].strip("-")
    return f"{stem or 'run'}-{digest}"


def _run(run_id: str, record: _Record) -> OriginalRun:
    saved = record.checkpoints or ()
    last = record.last_checkpoint
    if last is not None and saved[-1:] != (last,):
        saved = (*(path for path in saved if path != last), last)
    return OriginalRun(
        id=run_id,
        name=record.name,
        script_path=record.script_path,
        # A run still marked as running was a process of the npm version, which nobody here can watch.
        state="stopped" if record.status == "running" else record.status,
        checkpoints=saved,
        last_step=record.last_step,
        last_loss=record.last_loss,
        started_s=record.start_time / 1000,
        ended_s=None if record.end_time is None else record.end_time / 1000,
    )
