"""`backprop show RUN`: one run with its chain of segments, its checkpoints, and why it is where it is."""

from typing import TYPE_CHECKING, Final

import click

from backprop.cli.session import need_existing

if TYPE_CHECKING:
    from backprop.scheduler.database import Database
    from backprop.scheduler.home import Home
    from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
    from backprop.scheduler.spec import RunSpec

SHOWN_CHECKPOINTS: Final = 6
FAR_OFF_MIB: Final = 1024


@click.command(name="show")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(run: str, as_json: bool) -> None:
    """Show RUN, named by id, a unique beginning of its id, or its name."""
    home, database = need_existing()
    show(home, database, run, as_json)


def show(home: "Home", database: "Database", name: str, as_json: bool) -> None:
    """Print one run. Raises UnknownRun, AmbiguousRun."""
    from backprop.cli.views import checkpoint_view, print_json, run_view, segment_view
    from backprop.scheduler import reads

    run = reads.find_run(database, name)
    segments = reads.segments(database, run.id)
    saved = reads.checkpoints(database, run.id)
    if as_json:
        newest = next((one.path for one in saved if one.refused is None), None)
        logs = {one.number: str(home.segment_folder(run.id, one.number) / "log") for one in segments}
        chain = [segment_view(one, logs[one.number]) for one in segments]
        print_json(
            run_view(run, last_checkpoint=newest)
            | {"segments": chain, "checkpoints": [checkpoint_view(one) for one in saved]}
        )
        return
    _print(home, run, segments, saved)


def _print(
    home: "Home", run: "RunRecord", segments: "list[SegmentRecord]", saved: "list[CheckpointRecord]"
) -> None:
    from backprop.cli.submission import command_text
    from backprop.cli.table import print_pairs, print_table
    from backprop.cli.views import clock, duration, number, size

    spec = run.spec
    running_s = sum(one.running_s or 0.0 for one in segments)
    progress = f"step {run.last_step if run.last_step is not None else '-'}, loss {number(run.last_loss)}"
    print_pairs(
        [
            ("run", f"{run.id}  {run.name}"),
            ("state", f"{run.state}: {run.reason}"),
            ("command", command_text(spec)),
            ("directory", spec.cwd),
            ("progress", progress),
            ("segments", f"{run.segment}, {duration(running_s)} of running time"),
            (
                "timebox",
                f"{spec.timebox_s / 60:g} min, then SIG{spec.stop_signal} and {spec.grace_s:g} s to save",
            ),
            *_vram(spec, segments),
            ("queued", clock(run.created_at_s)),
            ("started", clock(run.started_at_s)),
            ("ended", clock(run.ended_at_s)),
            ("folder", str(home.run_folder(run.id))),
        ]
    )
    if segments:
        click.echo()
        rows = [
            (
                str(one.number),
                clock(one.started_at_s),
                duration(one.running_s),
                one.outcome or "alive",
                _code(one),
                one.checkpoint_used or "from the beginning",
            )
            for one in segments
        ]
        print_table(
            ("SEGMENT", "STARTED", "RAN", "OUTCOME", "EXIT", "RESUMED FROM"), rows, ("SEGMENT", "RAN")
        )
    if saved:
        click.echo()
        rows = [
            (
                "-" if one.step is None else str(one.step),
                str(one.segment),
                clock(one.saved_at_s),
                size(one.size_bytes) if one.refused is None else "refused",
                one.path if one.refused is None else f"{one.path}: {one.refused}",
            )
            for one in saved[:SHOWN_CHECKPOINTS]
        ]
        print_table(("STEP", "SEGMENT", "SAVED", "SIZE", "CHECKPOINT"), rows, ("STEP", "SEGMENT", "SIZE"))
        if len(saved) > SHOWN_CHECKPOINTS:
            click.echo(f"… and {len(saved) - SHOWN_CHECKPOINTS} older ones; see --json")


def _vram(spec: "RunSpec", segments: "list[SegmentRecord]") -> list[tuple[str, str]]:
    """What was reserved, who said so, what was used, and whether the declaration was far off."""
    from backprop.scheduler.rules import amount

    given = [one for one in segments if one.gpu_uuids]
    if not given:
        if spec.gpus == 0 or spec.gpu_probe == "none":
            return []
        if spec.gpu_memory_limit is not None:
            return [("VRAM", f"needs {spec.gpu_memory_limit} of a GPU (declared)")]
        source = "declared" if spec.gpu_min_vram_declared else "default, until its use is known"
        return [("VRAM", f"needs {amount(spec.gpu_min_vram_mib)} of a GPU ({source})")]
    promised_mib, source = given[-1].promised_mib, given[-1].need_source
    peak_mib = max((one.peak_mib for one in given if one.peak_mib is not None), default=None)
    told = f"{amount(promised_mib)} reserved ({source})"
    if peak_mib is None:
        return [("VRAM", f"{told}; its own use could not be seen")]
    far_off = ""
    if source == "declared" and peak_mib > promised_mib:
        far_off = ": more than declared; declare more"
    elif source == "declared" and promised_mib > 2 * peak_mib and promised_mib - peak_mib > FAR_OFF_MIB:
        far_off = ": far less than declared; declaring less lets more runs share a GPU"
    return [("VRAM", f"{told}; used at most {amount(peak_mib)}{far_off}")]


def _code(segment: "SegmentRecord") -> str:
    if segment.signal_name is not None:
        return segment.signal_name
    return "-" if segment.exit_code is None else str(segment.exit_code)
