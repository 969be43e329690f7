"""`backprop show RUN`: shows one run with its segments, its checkpoints and the reason of its state."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.help.completion import complete_runs
from backprop.cli.options.global_options import brief_option
from backprop.scheduler.config.parsers import MOST_KEPT

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
    from backprop.scheduler.spec import RunSpec
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.dependencies import Link


SHOWN_CHECKPOINTS: Final = 6
SHOWN_SEGMENTS: Final = 5
FOLDED_FROM: Final = 8
"""Segments that are shown without folding any."""
FAR_OFF_MIB: Final = 1024
PLOT_ROWS: Final = 6
LEAST_POINTS: Final = 3
"""A curve of fewer says no more than the last value."""


@click.command(name="show")
@click.argument("run", shell_complete=complete_runs)
@click.option("--segments", "every", is_flag=True, help="Show every segment of a long chain.")
@click.option(
    "--keep",
    type=click.IntRange(1, MOST_KEPT),
    metavar="N",
    help="Say which checkpoints would go with --keep-checkpoints N; none is removed.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@brief_option
def command(run: str, every: bool, keep: int | None, as_json: bool, brief: bool) -> None:
    """Show RUN, given by its id, a unique beginning of its id, or its name."""
    home, database = need_existing()
    if brief:
        _show_brief(home, database, run)
        return
    show(home, database, run, as_json, every, keep)


def _show_brief(home: "Home", database: "Database", name: str) -> None:
    import json

    from backprop.cli.render import answers, triage_view
    from backprop.cli.render.json_views import run_view
    from backprop.scheduler.store.reads import metrics, queries
    from backprop.worker.maintenance.triage_reader import triage_of_run

    run = queries.find_run(database, name)
    newest = queries.newest_checkpoints(database, [run.id]).get(run.id)
    last = metrics.latest_of_each(database, [run.id])[run.id]
    told = answers.brief_run(run_view(run, last_checkpoint=newest), {})
    told = triage_view.with_brief_triage(told, run.id, triage_of_run(home, database, run))
    click.echo(json.dumps(answers.with_metrics(told, last)))


def show(
    home: "Home",
    database: "Database",
    name: str,
    as_json: bool,
    every: bool = False,
    keep: int | None = None,
) -> None:
    """Print one run. `every`: fold no segments. `keep`: how many checkpoints would be kept.

    Raises UnknownRun, AmbiguousRun.
    """
    from backprop.cli.render import stop_view
    from backprop.cli.render.json_views import (
        checkpoint_view,
        iso,
        print_json,
        run_view,
        segment_view,
        suspension_view,
    )
    from backprop.scheduler.governor.box_end import rule_of
    from backprop.scheduler.store import dependencies
    from backprop.scheduler.store.reads import metrics, nights, queries
    from backprop.worker.maintenance.log_archive import log_of
    from backprop.worker.maintenance.triage_reader import triage_of_run

    run = queries.find_run(database, name)
    segments = queries.segments(database, run.id)
    saved = queries.checkpoints(database, run.id)
    after = dependencies.waits_for(database, run.id)
    if as_json:
        from backprop.cli.render.box_ends import boxes_left
        from backprop.cli.render.differences import note_view
        from backprop.cli.render.rotation_view import rotation_json
        from backprop.cli.render.triage_view import triage_json
        from backprop.cli.submit.recipe_view import goes_on_json, plan_json

        newest = next((one.path for one in saved if one.refused is None), None)
        logs = {one.number: str(log_of(home.segment_folder(run.id, one.number))) for one in segments}
        chain = [segment_view(one, logs[one.number]) for one in segments]
        print_json(
            run_view(run, last_checkpoint=newest)
            | {"suspensions": [suspension_view(one) for one in nights.suspensions_of(database, run.id)]}
            | {"segments": chain, "checkpoints": [checkpoint_view(one) for one in saved]}
            | {"not_before": iso(run.not_before_s or None), "after": [_link_view(one) for one in after]}
            | {"plan": plan_json(run.spec.plan), "goes_on_by": goes_on_json(run.spec)}
            | {"at_timebox": rule_of(run.spec).value, "suspend": run.spec.suspend}
            | {"suspended_by": run.suspension, "thaw_at": iso(run.thaw_at_s)}
            | {"metrics": metrics.latest_of_each(database, [run.id])[run.id]}
            | {"progress": _progress_json(home, database, run)}
            | {"rotation": rotation_json(home, database, run, keep)}
            | {"triage": triage_json(run.id, triage_of_run(home, database, run))}
            | {"box_left_s": boxes_left(home, [run], segments[-1:], time.time()).get(run.id)}
            | {"provenance": note_view.note_json(home, note_view.note_of(home, run))}
            | {"signal_to": run.spec.signal_to, "signalled": stop_view.signalled(home, run)}
        )
        return
    _print(home, database, run, segments, saved, after, every, keep)


def _print(
    home: "Home",
    database: "Database",
    run: "RunRecord",
    segments: "list[SegmentRecord]",
    saved: "list[CheckpointRecord]",
    after: "list[Link]",
    every: bool,
    keep: int | None,
) -> None:
    from backprop.cli.render import stop_view
    from backprop.cli.render.jobs.job_rows import print_jobs
    from backprop.cli.render.json_views import NAN, clock, duration, number, size
    from backprop.cli.render.rotation_view import rotation_lines, rotation_pairs
    from backprop.cli.render.tables import print_pairs, print_table
    from backprop.cli.render.terminal_text import command_text, safe
    from backprop.cli.render.triage_view import triage_pairs
    from backprop.cli.submit.goes_on import timebox_text
    from backprop.cli.submit.recipe_view import pairs, resume_text
    from backprop.scheduler.lifecycle import FINAL
    from backprop.scheduler.records import LOG
    from backprop.worker.maintenance.triage_reader import triage_of_run

    spec = run.spec
    running_s = sum(one.running_s or 0.0 for one in segments)
    finite = number(run.last_loss)
    loss = f"nan, last finite value {finite}" if run.fault == NAN else finite
    of = f" of {run.step_total}" if run.step_total is not None else ""
    step = f"{run.step_unit or 'step'} {run.last_step}{of}" if run.last_step is not None else "step -"
    progress = (
        f"{step}, loss {loss}{', read from its output' if LOG in (run.step_source, run.loss_source) else ''}"
    )
    print_pairs(
        [
            ("run", f"{run.id}  {run.name}"),
            ("state", f"{run.state}: {run.reason}"),
            *triage_pairs(run.id, triage_of_run(home, database, run)),
            ("command", command_text(spec)),
            ("program", spec.program),
            ("directory", spec.cwd),
            *_code_noted(home, run),
            ("progress", progress),
            *([] if run.state in FINAL else _ahead(home, database, run)),
            ("segments", f"{run.segment}, {duration(running_s)} of running time"),
            *_turns(database, run, segments),
            ("timebox", f"{timebox_text(spec, _overrun(spec))}{_left(home, run, segments)}"),
            ("stop signal", stop_view.live(spec, stop_view.signalled(home, run))),
            *pairs(spec),
            ("resumes", resume_text(spec)),
            *rotation_pairs(database, run, keep),
            *_vram(spec, segments),
            *([] if spec.cluster is None else [("cluster", spec.cluster)]),
            *_place(database, run, after),
            ("queued", clock(run.created_at_s)),
            ("started", clock(run.started_at_s)),
            ("ended", clock(run.ended_at_s)),
            ("folder", str(home.run_folder(run.id))),
        ]
    )
    if segments:
        click.echo()
        shown = segments if every or len(segments) <= FOLDED_FROM else segments[-SHOWN_SEGMENTS:]
        if len(shown) < len(segments):
            click.echo(_folded(segments[: -len(shown)]))
        rows = [
            (
                str(one.number),
                clock(one.started_at_s),
                duration(one.running_s),
                duration(one.cut_cost_s),
                one.outcome or "alive",
                _code(one),
                _within(one.checkpoint_used, spec.cwd) if one.checkpoint_used else "from the beginning",
            )
            for one in shown
        ]
        print_table(
            ("SEGMENT", "STARTED", "RAN", "LOST", "OUTCOME", "EXIT", "RESUMED FROM"),
            rows,
            ("SEGMENT", "RAN", "LOST"),
        )
        print_jobs(home, run, shown)
    _plot(database, run)
    if saved:
        click.echo()
        rows = [
            (
                "-" if one.step is None else str(one.step),
                str(one.segment),
                clock(one.saved_at_s),
                size(one.size_bytes) if one.refused is None else "refused",
                _within(one.path, spec.cwd) + (f": {one.refused}" if one.refused is not None else ""),
            )
            for one in saved[:SHOWN_CHECKPOINTS]
        ]
        print_table(("STEP", "SEGMENT", "SAVED", "SIZE", "CHECKPOINT"), rows, ("STEP", "SEGMENT", "SIZE"))
        if len(saved) > SHOWN_CHECKPOINTS:
            click.echo(f"… and {len(saved) - SHOWN_CHECKPOINTS} older ones; see --json")
    for line in rotation_lines(home, database, run, keep):
        click.echo(safe(line))


def _plot(database: "Database", run: "RunRecord") -> None:
    """Draw the loss of a run that has reported some, on a terminal."""
    import sys

    from backprop.cli.render.json_views import is_terminal
    from backprop.cli.render.plots import curve_of, plot, style_of, width_of
    from backprop.scheduler.store.reads import metrics

    if not is_terminal(sys.stdout):
        return
    curve = curve_of(metrics.curve(database, run.id, "loss"), "loss", "step")
    if curve is None or len(curve.points) < LEAST_POINTS:
        return
    click.echo()
    style = style_of(sys.stdout)
    for line in plot([curve], width_of(sys.stdout), PLOT_ROWS, "step", style):
        click.echo(line, color=style.colour)


def _turns(database: "Database", run: "RunRecord", segments: "list[SegmentRecord]") -> list[tuple[str, str]]:
    """Return how long it was suspended, and what its turns have cost it."""
    from backprop.cli.render.lost_time import lost_words, suspended_words
    from backprop.scheduler.store.reads.nights import suspensions_of

    suspensions = suspensions_of(database, run.id)
    told = {
        "suspended": suspended_words(suspensions, run.ended_at_s or time.time()),
        "lost": lost_words(segments, suspensions),
    }
    return [(name, words) for name, words in told.items() if words is not None]


def _code_noted(home: "Home", run: "RunRecord") -> list[tuple[str, str]]:
    """Return what is known of its code and its Python; nothing without a note."""
    from backprop.cli.render.differences import note_view

    noted = note_view.note_of(home, run)
    if noted is None:
        return []
    kept = "; each segment runs its snapshot" if run.spec.code is not None else ""
    python = note_view.python_words(noted)
    found = [("code", f"{note_view.code_words(noted)}{kept}")]
    return found + ([("Python", python)] if python is not None else [])


def _left(home: "Home", run: "RunRecord", segments: "list[SegmentRecord]") -> str:
    from backprop.cli.render.box_ends import boxes_left
    from backprop.cli.render.run_rows import clock_face

    left_s = boxes_left(home, [run], segments[-1:], time.time()).get(run.id)
    return f"; {clock_face(left_s)} left" if left_s is not None else ""


def _progress_json(home: "Home", database: "Database", run: "RunRecord") -> "dict[str, Any] | None":
    from backprop.cli.render import outlook
    from backprop.cli.render.json_views import iso
    from backprop.scheduler.lifecycle import FINAL

    if run.state in FINAL:
        return None
    now_s = time.time()
    seen = outlook.outlook(home, database, now_s)
    pace = seen.paces.get(run.id)
    end_s = seen.told.ends.get(run.id) if seen.told is not None else None
    return {
        "total": pace.total if pace is not None else None,
        "total_source": pace.total_source if pace is not None else None,
        "percent": outlook.percent(run, pace),
        "ends_at": iso(now_s + end_s) if end_s is not None else None,
        "source": pace.source if pace is not None else None,
    }


def _ahead(home: "Home", database: "Database", run: "RunRecord") -> list[tuple[str, str]]:
    """Return how far it is and when it will end, each with where that is known from."""
    from backprop.cli.render import outlook

    now_s = time.time()
    seen = outlook.outlook(home, database, now_s)
    pace = seen.paces.get(run.id)
    done = outlook.percent(run, pace)
    said = [f"{done} %"] if done is not None else []
    end = outlook.end_words(seen, run.id, now_s)
    if pace is not None and pace.source is not None and end != "?":
        said.append(f"ends {end} ({pace.source})")
    elif pace is not None and pace.source is not None:
        said.append(f"{pace.source}; no end is told while nothing is started, or its group has a cap")
    return [("ahead", ", ".join(said))] if said else []


def _folded(earlier: "list[SegmentRecord]") -> str:
    """Return segments that are not shown as a line: how many, how long, their steps and what their ends have cost."""
    from backprop.cli.render.json_views import duration

    ran_s = sum(one.running_s or 0.0 for one in earlier)
    lost_s = sum(one.cut_cost_s or 0.0 for one in earlier)
    steps = [one.first_step for one in earlier if one.first_step is not None]
    through = f", from step {steps[0]} to {steps[-1]}" if len(steps) > 1 else ""
    each = duration(ran_s / len(earlier))
    return f"{len(earlier)} earlier segments, {each} each{through}, {duration(lost_s)} lost; all: --segments"


def _within(path: str, cwd: str) -> str:
    """Return a path as seen from the run's directory, where it lies in it."""
    return path.removeprefix(f"{cwd}/")


def _link_view(link: "Link") -> dict[str, str | None]:
    state = link.state.value if link.state is not None else None
    return {"run": link.parent, "kind": link.kind, "state": state}


def _place(database: "Database", run: "RunRecord", after: "list[Link]") -> list[tuple[str, str]]:
    """Return what of its position in the queue is not the default."""
    from backprop.cli.render.json_views import clock
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.reads.start_conditions import dependency_text

    found: list[tuple[str, str]] = []
    if run.group_name is not None:
        index = "" if run.array_index is None else f", array index {run.array_index}"
        found.append(("group", f"{run.group_name}{index}{_group_end(database, run.group_name)}"))
    if run.key is not None:
        found.append(("key", run.key))
    if run.priority:
        found.append(("priority", str(run.priority)))
    if run.state is State.QUEUED and run.not_before_s > time.time():
        found.append(("not before", clock(run.not_before_s)))
    return found + [("after", dependency_text(*one).removeprefix("waits for ")) for one in after]


def _group_end(database: "Database", name: str) -> str:
    """Return when the run's group ends, or why it has; empty for a group without such a rule."""
    from backprop.scheduler.outcome.group_budget import rule_words
    from backprop.scheduler.store import budgets, groups

    why = budgets.over(database).get(name)
    if why is not None:
        return f"; over: {why}"
    rules = groups.rules(database, name)
    ends = rule_words(rules.until, rules.max_total_s) if rules is not None else None
    return f"; ends at {ends}" if ends is not None else ""


def _vram(spec: "RunSpec", segments: "list[SegmentRecord]") -> list[tuple[str, str]]:
    """Return what was reserved, by whom, the peak use, and whether the declaration was far off."""
    from backprop.scheduler.governor.model import amount

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
    reserved = f"reserved {amount(promised_mib)} ({source})"
    if peak_mib is None:
        return [("VRAM", f"{reserved}; actual use unknown")]
    far_off = ""
    if source == "declared" and peak_mib > promised_mib:
        far_off = ", more than declared: declare more"
    elif source == "declared" and promised_mib > 2 * peak_mib and promised_mib - peak_mib > FAR_OFF_MIB:
        far_off = ", far less than declared: declare less to let more runs share a GPU"
    return [("VRAM", f"{reserved}; peak {amount(peak_mib)}{far_off}")]


def _overrun(spec: "RunSpec") -> str:
    return f", up to {spec.overrun_pct:g}% more until its first checkpoint" if spec.overrun_pct else ""


def _code(segment: "SegmentRecord") -> str:
    if segment.signal_name is not None:
        return segment.signal_name
    return "-" if segment.exit_code is None else str(segment.exit_code)
