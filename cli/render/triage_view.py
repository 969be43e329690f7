"""Shows what ended a run's last segment: in JSON, also in short, and for people."""

import json
from collections.abc import Mapping
from typing import Any, Final

from backprop.cli.render.answers import short
from backprop.worker.maintenance.triage_reader import RunTriage

ANSWER_BYTES: Final = 940
"""Of a brief answer with its triage; the rest of 1 KB is for its metrics."""
LONG, SHORT, SHORTEST = (480, 300, 300), (150, 80, 110), (50, 40, 100)
"""Bytes of a message, a file and a remedy."""
LEFT_OUT: Final = (
    ("reason", 60),
    ("last_checkpoint", 0),
    ("group", 24),
    ("name", 32),
    ("key", 64),
    ("reason", 20),
)
"""Fields of a brief answer that give room to a triage, in this order, and the bytes that are left of each."""


def triage_json(
    run_id: str, triage: RunTriage | None, most: tuple[int, int, int] = LONG
) -> dict[str, Any] | None:
    """Return it as in `show --json`. `most`: bytes of its message, its file and its remedy."""
    if triage is None:
        return None
    found = triage.found
    message, file, remedy = most
    place = found.place
    return {
        "kind": found.kind.value,
        "segment": triage.segment,
        "at": None
        if place is None
        else {
            "file": short(place.file, file),
            "line": place.line,
            "function": short(place.function, 40) or None,
        },
        "message": short(found.message, message),
        "remedy": short(found.remedy.replace("RUN", run_id), remedy),
        "would_fail_again": triage.would_fail_again,
    }


def with_brief_triage(answer: Mapping[str, Any], run_id: str, triage: RunTriage | None) -> dict[str, Any]:
    """Return a brief answer with its triage, of 1 KB at most: what the triage says is left out of the reason first."""
    whole: dict[str, Any] = dict(answer) | {"triage": triage_json(run_id, triage, SHORT)}
    for field, most in LEFT_OUT if triage is not None else ():
        if len(json.dumps(whole)) <= ANSWER_BYTES:
            return whole
        whole[field] = short(whole[field], most) if most else None
    if len(json.dumps(whole)) > ANSWER_BYTES:
        whole["triage"] = triage_json(run_id, triage, SHORTEST)
    return whole


def triage_pairs(run_id: str, triage: RunTriage | None) -> list[tuple[str, str]]:
    """Return it as rows of `show`."""
    if triage is None:
        return []
    found, place = triage.found, triage.found.place
    where = f" at {place.file}:{place.line}" if place is not None else ""
    where += f" in {place.function}" if place is not None and place.function else ""
    said = f": {found.message}" if found.message else ""
    again = [("fails again", triage.why_again)] if triage.why_again is not None else []
    return [
        ("failed by", f"{found.kind}{where}{said}"),
        ("what to do", found.remedy.replace("RUN", run_id)),
        *again,
    ]
