"""Builds the JSON of in what two runs differ, documented in docs/json.md."""

import json
from typing import TYPE_CHECKING, Any

from backprop.cli.render.differences.two_runs import FileDifference, TwoRuns

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord
    from backprop.worker.environment.provenance.notes import Noted


def differences_json(found: TwoRuns) -> dict[str, Any]:
    """Return the object."""
    sections = {
        section: {
            "unknown": found.unknown.get(section),
            "differs": [
                {"name": one.name, "a": one.a, "b": one.b, "hidden": one.hidden} for one in differences
            ],
        }
        for section, differences in found.sections.items()
    }
    code = found.code
    return {
        "a": _run(found.a, found.notes[0]),
        "b": _run(found.b, found.notes[1]),
        "same": code is not None
        and not (code.files or code.unknown or found.unknown or any(found.sections.values())),
        "code": {
            "unknown": list(code.unknown) if code is not None else ["a run without a note"],
            "files": [_file(one) for one in found.files],
        },
        **sections,
    }


def brief_json(found: TwoRuns) -> dict[str, Any]:
    """Return at most 1 KB of it: the first differences of each kind, their values cut, and how many there are."""
    from backprop.cli.render.answers import BRIEF_BYTES, short

    whole = differences_json(found)
    for most, width in ((8, 60), (4, 40), (2, 24), (1, 16), (0, 0)):
        told: dict[str, Any] = {"a": found.a.id, "b": found.b.id, "same": whole["same"]}
        files = [file.file.name for file in found.files]
        told["code"] = {
            "files": [short(name, width) for name in files[:most]],
            "count": len(files),
            "unknown": bool(whole["code"]["unknown"]),
        }
        for section, differences in found.sections.items():
            if differences or section in found.unknown:
                shown = [
                    {"name": short(one.name, width), "a": short(one.a, width), "b": short(one.b, width)}
                    for one in differences[:most]
                ]
                told[section] = {
                    "differs": shown,
                    "count": len(differences),
                    "unknown": section in found.unknown,
                }
        if len(json.dumps(told)) < BRIEF_BYTES:
            break
    return told


def _run(run: "RunRecord", noted: "Noted | None") -> dict[str, Any]:
    note = noted.provenance if noted is not None else None
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state.value,
        "commit": note.own.commit if note is not None else None,
        "branch": note.own.branch if note is not None else None,
        "dirty": note.dirty if note is not None and note.git else None,
    }


def _file(one: FileDifference) -> dict[str, Any]:
    return {
        "path": one.file.name,
        "kind": one.file.kind,
        "patch": one.patch.decode(errors="replace") if one.patch is not None else None,
        "unknown": one.unknown,
    }
