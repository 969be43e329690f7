"""Builds the JSON of runs, segments and checkpoints, and formats times, sizes and numbers for people.

The JSON is a contract: docs/json.md.
"""

import json
import time
from datetime import datetime
from typing import Any, Final, TextIO

from backprop.cli.render.terminal_text import command_text
from backprop.scheduler.home.credentials import masked_value
from backprop.scheduler.records import EVENT, CheckpointRecord, RunRecord, SegmentRecord, SuspensionRecord

NAN: Final = "NaN loss"
"""`Fault.NAN`, without importing it."""


def print_json(value: object) -> None:
    """Print indented ASCII, so that no control character of a name or path reaches a terminal."""
    import click

    click.echo(json_text(value))


def json_text(value: object) -> str:
    """Return what `print_json` prints."""
    return json.dumps(value, indent=2)


def run_view(
    run: RunRecord, segment_count: int | None = None, last_checkpoint: str | None = None
) -> dict[str, Any]:
    """Return a run as in `list --json`. `segment_count` None: that of the run."""
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state.value,
        "reason": run.reason,
        "command": command_text(run.spec),
        "cwd": run.spec.cwd,
        "segment_count": run.segment if segment_count is None else segment_count,
        "boxes": run.boxes,
        "last_step": run.last_step,
        "last_loss": run.last_loss,
        "step_unit": run.step_unit,
        "step_total": run.step_total,
        "source": {
            "step": None if run.last_step is None else run.step_source or EVENT,
            "loss": None if run.last_loss is None else run.loss_source or EVENT,
        },
        "last_checkpoint": last_checkpoint,
        "created_at": iso(run.created_at_s),
        "started_at": iso(run.started_at_s),
        "ended_at": iso(run.ended_at_s),
        "exit_code": run.exit_code,
        "fault": run.fault,
        "group": run.group_name,
        "array_index": run.array_index,
        "priority": run.priority,
        "params": {key: masked_value(key, value) for key, value in run.spec.params.items()},
        "key": run.key,
        "cluster": run.cluster,
    }


def segment_view(segment: SegmentRecord, log: str) -> dict[str, Any]:
    """Return a segment as in `show --json`. `log`: the path of its log."""
    return {
        "number": segment.number,
        "started_at": iso(segment.started_at_s),
        "ended_at": iso(segment.ended_at_s),
        "outcome": segment.outcome,
        "reason": segment.reason,
        "exit_code": segment.exit_code,
        "signal": segment.signal_name,
        "running_s": segment.running_s,
        "boxes": segment.boxes,
        "kept_mib": segment.kept_mib,
        "vram_out_mib": segment.vram_out_mib,
        "cut_cost_s": segment.cut_cost_s,
        "first_step": segment.first_step,
        "step_unit": segment.step_unit,
        "checkpoint_used": segment.checkpoint_used,
        "gpus": list(segment.gpu_uuids),
        "promised_mib": segment.promised_mib,
        "need_source": segment.need_source,
        "peak_mib": segment.peak_mib,
        "bad_events": segment.bad_events,
        "cluster": segment.cluster,
        "job": segment.job,
        "node": segment.node,
        "engine_words": segment.engine_words,
        "log": log,
    }


def suspension_view(suspension: SuspensionRecord) -> dict[str, Any]:
    """Return a suspension as in `show --json`."""
    return {
        "segment": suspension.segment,
        "ordered_at": iso(suspension.ordered_at_s),
        "left_at": iso(suspension.left_at_s),
        "claimed_at": iso(suspension.claimed_at_s),
        "on_at": iso(suspension.on_at_s),
    }


def checkpoint_view(checkpoint: CheckpointRecord) -> dict[str, Any]:
    """Return a checkpoint as in `show --json`."""
    return {
        "path": checkpoint.path,
        "segment": checkpoint.segment,
        "step": checkpoint.step,
        "size_bytes": checkpoint.size_bytes,
        "saved_at": iso(checkpoint.saved_at_s),
        "refused": checkpoint.refused,
        "attribution": checkpoint.attribution,
        "observed": checkpoint.observed,
    }


def iso(at_s: float | None) -> str | None:
    """Return Unix seconds as ISO 8601 with the local zone; None stays None."""
    return (
        None if at_s is None else datetime.fromtimestamp(at_s).astimezone().isoformat(timespec="milliseconds")
    )


def clock(at_s: float | None) -> str:
    """Return a time for people: without its date if that is today; "-" for None."""
    if at_s is None:
        return "-"
    local = time.localtime(at_s)
    same_day = local[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M", local)


def duration(seconds: float | None) -> str:
    """Return a duration for people: 4.2s, 12m05s, 3h07m, 2d04h; "-" for None.

    Less than nothing is nothing: what an age counts from lies ahead once the wall clock has been set back.
    """
    if seconds is None:
        return "-"
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def size(count: int) -> str:
    """Return bytes for people: 512 B, 1.2 kB, 3.4 MB, 5.6 GB."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count} B"


def number(value: float | None) -> str:
    """Return four significant digits; "-" for None."""
    return "-" if value is None else f"{value:.4g}"


def is_terminal(stream: TextIO) -> bool:
    """Return whether the stream is open and a terminal."""
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False
