"""Removes credentials from what is stored of runs that have ended: the values of variables that look like some.

The names stay, as `scrubbed` in `spec.json` and in the first line of a batch, so that a resume can ask its shell for
them. What looks like a credential is what `credentials` masks everywhere.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.credentials import masked_value
from backprop.scheduler.home.file_reading import is_there, read_if_there
from backprop.scheduler.home.layout import Home


def scrub_run(home: Home, run_id: str) -> None:
    """Remove the credentials from a run's folder, if it has one. Raises OSError, ValueError."""
    folder = home.run_folder(run_id)
    if not is_there(folder):
        return
    _scrub_file(folder / "spec.json", note=True)
    for number in run_folder.segment_numbers(folder):
        _scrub_file(folder / str(number) / "order.json", note=False)


def scrub_batch(home: Home, batch: str) -> None:
    """Remove the credentials from a batch, which no member waits in any more. Raises OSError, ValueError."""
    path = home.batch_file(batch)
    content = read_if_there(path)
    if content is None:
        return
    lines = [json.loads(line) for line in content.splitlines()]
    names = sorted({name for line in lines for name in _secret(line.get("environment", {}))})
    if not names:
        return
    for line in lines:
        line["environment"] = _without(line.get("environment", {}), names)
    lines[0]["scrubbed"] = sorted({*lines[0].get("scrubbed", ()), *names})
    # As `batch_file` writes them: members are searched for by how their lines begin.
    dumped = [json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n" for line in lines]
    draft = path.with_suffix(f".{os.getpid()}.part")
    run_folder.write_synced(draft, dumped)
    draft.replace(path)
    run_folder.sync(path.parent)


def taken_from(scrubbed: list[str], shell: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that were scrubbed and that a shell has."""
    return {name: shell[name] for name in scrubbed if name in shell}


def scrubbed_names(folder: Path) -> list[str]:
    """Return the names of the variables that were scrubbed from a run's folder; none where that is damaged. Raises
    OSError."""
    content = run_folder.read_spec(folder)
    return list(content.scrubbed) if content is not None else []


def _scrub_file(path: Path, note: bool) -> None:
    content = read_if_there(path)
    body: dict[str, Any] = json.loads(content) if content is not None else {}
    names = _secret(body.get("environment", {}))
    if names:
        changed: dict[str, Any] = {"environment": _without(body["environment"], names)}
        if note:
            changed["scrubbed"] = sorted({*body.get("scrubbed", ()), *names})
        run_folder.restore_spec(path.parent, json.dumps(body | changed).encode("ascii"), path.name)


def _secret(environment: Mapping[str, str]) -> list[str]:
    return [name for name, value in environment.items() if masked_value(name, value) != value]


def _without(environment: Mapping[str, str], names: list[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}
