"""`backprop import FILE`: imports the runs that the npm tool of the same name recorded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backprop.cli.context import open_existing, open_home, tell
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit.names import name_of
from backprop.cli.submit.shell import environment_of_shell, python_of_shell
from backprop.cli.submit.submission import SubmissionRequest, spec_of
from backprop.scheduler.home import layout

if TYPE_CHECKING:
    from backprop.scheduler.config.settings import Effective
    from backprop.scheduler.npm_import import OriginalRun
    from backprop.scheduler.records import CheckpointRecord


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@verb_options
@click.pass_context
def command(ctx: click.Context, file: Path, config: str | None, verbose: bool, dry_run: bool) -> int:
    """Import runs from FILE, the npm version's ~/.backprop/experiments.json: ids, names, states, steps, checkpoints.

    Relative paths in FILE start at this directory, and the runs get the settings that apply here (`backprop config`).
    Runs whose ids exist already are left alone, so the import can be repeated. Afterwards, `backprop resume ID`
    continues a run from its last checkpoint.
    """
    from backprop.scheduler import npm_import
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.config.settings import load
    from backprop.scheduler.errors import BadConfig
    from backprop.scheduler.home import run_folder
    from backprop.scheduler.spec import decode
    from backprop.scheduler.store.reads import queries
    from backprop.scheduler.store.writes import enqueue

    original = npm_import.read_original(file)
    if original is None:
        raise BadConfig(f"{file} does not exist; the npm tool keeps its runs in ~/.backprop/experiments.json")
    for run in original.skipped:
        click.echo(f"skipped {safe(run.id)}: {safe(run.why)}", err=True)
    given = globals_of(ctx, config, verbose, dry_run)
    cwd = current_directory()
    effective = load(cwd, layout.locate().root, given.config, {})
    if given.dry_run:
        _, existing = open_existing()
        known = {run.id for run in queries.list_runs(existing)} if existing is not None else set[str]()
        for run in original.runs:
            click.echo(f"would {'leave alone' if run.id in known else 'import'} {run.id} ({run.state})")
        return 0
    home, database = open_home()
    environment = environment_of_shell(())
    rows = {run.id: _row(run, cwd, effective) for run in original.runs}
    for run_id, (values, _) in rows.items():
        if not home.run_folder(run_id).exists():
            _, folder = run_folder.create(home, run_id)
            spec = decode(values["spec"])
            run_folder.write_spec(folder, run_id, values["name"], spec, environment, values["created_at_s"])
    added = enqueue.adopt_foreign(database, list(rows.values()))
    answers.current().database, ids = database, set(added)
    answers.current().touch([run for run in original.runs if run.id in ids])
    known_before = len(original.runs) - len(added)
    skipped = f", {len(original.skipped)} skipped" if original.skipped else ""
    tell(
        f"imported {len(added)} of {len(original.runs) + len(original.skipped)} runs; {known_before} were here"
        f" already{skipped}"
    )
    return 0


def _row(
    run: "OriginalRun", cwd: Path, effective: "Effective"
) -> "tuple[dict[str, Any], list[CheckpointRecord]]":
    """Return a finished run's column values and its checkpoints; those that are no longer good are marked refused."""
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.writes import enqueue

    script = cwd / run.script_path
    python = python_of_shell(effective.settings.python, cwd)
    spec = spec_of((python, run.script_path), python, script, cwd, effective, SubmissionRequest())
    values = enqueue.finished_run(
        run.id,
        run.name or name_of(script),
        spec,
        State(run.state),
        run.started_s,
        run.ended_s or run.started_s,
    )
    values |= {"reason": "imported from the npm tool", "last_step": run.last_step, "last_loss": run.last_loss}
    return values, [_checkpoint(run, path, cwd) for path in run.checkpoints]


def _checkpoint(run: "OriginalRun", path: str, cwd: Path) -> "CheckpointRecord":
    from backprop.scheduler.records import CheckpointRecord
    from backprop.worker.checkpoints.validation import Rejected, validate_announced

    known = validate_announced(path, cwd, (cwd, (cwd / path).parent), None)
    return CheckpointRecord(
        run_id=run.id,
        segment=0,
        path=path if isinstance(known, Rejected) else str(known.path),
        step=None,
        size_bytes=0 if isinstance(known, Rejected) else known.size_bytes,
        mtime_ns=0 if isinstance(known, Rejected) else known.mtime_ns,
        is_dir=False if isinstance(known, Rejected) else known.is_dir,
        saved_at_s=run.ended_s or run.started_s,
        refused=known.why if isinstance(known, Rejected) else None,
    )
