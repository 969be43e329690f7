"""Words what `status` shows below its head: the GPUs, and what runs there. Each thing is said once.

Pure. An amount of VRAM stands beside its run alone, and a reason that several GPUs share in one line.
"""

from collections.abc import Mapping, Sequence

from backprop.cli.render.machine_view import NO_WORKER, GpuView, Overview
from backprop.cli.render.outlook import moment
from backprop.cli.render.run_rows import loss, step, time_of
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.governor.model import amount

GPU_COLUMNS = ("GPU", "FREE", "TOTAL", "PROMISED", "FOREIGN", "TEMP", "LIMIT", "UTIL", "NAME")
RIGHT = ("SEG", "GPU", "PROMISED", "TIME", "STEP", "LOSS")
SHOWN_HOLDERS = 4


def gpu_row(view: GpuView) -> tuple[str, ...]:
    """Return the cells of `GPU_COLUMNS`."""
    gpu = view.gpu
    return (
        str(gpu.index),
        mib(gpu.free_mib),
        mib(gpu.total_mib),
        mib(sum(view.promised.values())) if view.promised else "-",
        "-" if view.room is None or not view.room.foreign_mib else mib(view.room.foreign_mib),
        "-" if gpu.temp_c is None else f"{gpu.temp_c} °C",
        f"{view.limit_c} °C",
        "-" if gpu.utilisation_pct is None else f"{gpu.utilisation_pct} %",
        gpu.name,
    )


def disk_lines(full_at: Mapping[str, float], now_s: float) -> list[str]:
    """Return when each disk that fills will be full. `full_at`, `now_s`: Unix seconds."""
    return [
        f"{folder} fills: at this pace full at ≈{moment(at_s, now_s)}" for folder, at_s in full_at.items()
    ]


def gpu_notes(shown: Overview) -> list[str]:
    """Return what is to be said of GPUs beside their numbers, of those for which it is the same in one line."""
    indices: dict[str, list[str]] = {}
    for view in shown.gpus:
        for note in _notes(view, shown):
            indices.setdefault(note, []).append(str(view.gpu.index))
    return [f"GPU{'s' if len(of) > 1 else ''} {', '.join(of)}: {note}" for note, of in indices.items()]


def _notes(view: GpuView, shown: Overview) -> list[str]:
    notes: list[str] = []
    if view.room is not None and view.room.elsewhere_mib:
        notes.append(f"{amount(view.room.elsewhere_mib)} promised by another home")
    if view.gpu.error is not None:
        notes.append(f"not used: {safe(view.gpu.error)}")
    if view.quarantine is not None:
        notes.append(f"quarantined: {safe(view.quarantine)}")
    notes += [f"held by {safe(holder.sentence())}" for holder in view.holders[:SHOWN_HOLDERS]]
    if len(view.holders) > SHOWN_HOLDERS:
        notes.append(f"held by {len(view.holders) - SHOWN_HOLDERS} more; see --json")
    if view.gpu.throttled:
        notes.append("the driver is throttling it (too hot)")
    idle = view.idle_because
    said_above = idle == NO_WORKER or (shown.closed is not None and shown.closed in (idle or ""))
    if idle is not None and not said_above:
        notes.append(f"idle: {safe(idle)}")
    return notes


def run_rows(shown: Overview, now_s: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and cells of the live runs. A column in which nobody has anything is left out."""
    segments = {segment.run_id: segment for segment in shown.alive}
    index_of = {view.gpu.uuid: str(view.gpu.index) for view in shown.gpus}
    columns = ("RUN", "NAME", "STATE", "SEG", "GPU", "PROMISED", "TIME", "STEP", "LOSS", "REASON")
    rows: list[tuple[str, ...]] = []
    for run in shown.live:
        segment = segments.get(run.id)
        uuids = segment.gpu_uuids if segment is not None else ()
        rows.append(
            (
                run.id,
                run.name,
                run.state.value,
                str(run.segment),
                ",".join(index_of.get(uuid, "?") for uuid in uuids) or "-",
                amount(segment.promised_mib) if segment is not None and segment.promised_mib else "-",
                time_of(run, segment, shown.left.get(run.id), now_s),
                step(run),
                loss(run),
                "-" if run.reason == f"segment {run.segment}" else run.reason,
            )
        )
    return _without_empty(columns, rows)


def _without_empty(
    columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    kept = [at for at in range(len(columns)) if any(row[at] != "-" for row in rows)]
    return tuple(columns[at] for at in kept), [tuple(row[at] for at in kept) for row in rows]


def mib(value: int | None) -> str:
    """Return MiB for people; "-" for what is not known."""
    return "-" if value is None else amount(value)
