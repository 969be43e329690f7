"""`backprop resume RUN`: back into the queue, from the last checkpoint, the chain's history kept."""

import contextlib
import time
from pathlib import Path
from typing import Any

import click

from backprop.cli import options
from backprop.cli.safe import safe
from backprop.cli.session import global_options, globals_of, need_existing
from backprop.scheduler import home as homes

KEYS = (
    "maxRunMinutes",
    "graceSeconds",
    "maxSegments",
    "maxTotalMinutes",
    "retries",
    "autoResume",
    "gpuMemoryLimit",
)
FIELDS = {
    "maxRunMinutes": "timebox_s",
    "graceSeconds": "grace_s",
    "maxSegments": "max_segments",
    "maxTotalMinutes": "max_total_s",
    "retries": "retries",
    "autoResume": "auto_resume",
    "gpuMemoryLimit": "gpu_memory_limit",
}


@click.command(name="resume")
@click.argument("run")
@options.setting_options(KEYS)
@click.option(
    "-r", "--resume-from", metavar="PATH", help="Resume from this instead of its newest good checkpoint."
)
@click.option("--from-scratch", is_flag=True, help="Start at zero.")
@click.option("--follow", is_flag=True, help="Show the output and end with the run.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    run: str,
    resume_from: str | None,
    from_scratch: bool,
    follow: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Queue RUN again, whatever its final state, or release it if it is held. Options given here replace its own."""
    import msgspec

    from backprop.scheduler import folders, queue, reads
    from backprop.scheduler.errors import BadCommand, IllegalMove
    from backprop.scheduler.lifecycle import FINAL, State
    from backprop.scheduler.settings import load
    from backprop.worker.wake import wake_workers

    if resume_from is not None and from_scratch:
        raise click.UsageError("--resume-from and --from-scratch exclude each other", ctx)
    home, database = need_existing()
    found = reads.find_run(database, run)
    if found.state not in FINAL and found.state is not State.HELD:
        raise IllegalMove(
            f"run {found.id} is {found.state}; only a run that has ended or is held can be resumed"
        )
    pin = "" if from_scratch else None
    if resume_from is not None:
        path = Path.cwd() / resume_from
        if not path.exists():
            raise BadCommand(f"--resume-from {resume_from} does not exist in {Path.cwd()}")
        pin = str(path)
    given = globals_of(ctx, config, verbose, dry_run)
    flags = options.flags_of(values)
    settings = load(Path.cwd(), homes.locate().root, given.config, flags, options.option_names()).settings
    changes = {FIELDS[key]: getattr(settings, FIELDS[key]) for key in flags}
    spec = msgspec.structs.replace(found.spec, **changes)
    how = _how(
        pin,
        [one.path for one in reads.checkpoints(database, found.id) if one.refused is None],
        spec.resume_from,
    )
    if given.dry_run:
        click.echo(f"would queue {safe(found.name)} ({found.id}) again, {safe(how)}")
        return 0
    with contextlib.suppress(OSError):
        # Before the row: an outcome that outlives this command's death would end the run again.
        folders.clear_outcome(home.run_folder(found.id))
    queue.resume(database, found, spec, pin, time.time())
    with contextlib.suppress(OSError, ValueError):
        if changes:
            folders.change_spec(home.run_folder(found.id), spec)
    awake = wake_workers(home.locks)
    click.echo(f"queued {safe(found.name)} ({found.id}) again, {safe(how)}")
    if follow:
        from backprop.cli.follow import follow_run

        return follow_run(home, database, found.id, settings)
    if not awake:
        click.echo("no worker is running; start one (in tmux, say) with: backprop worker", err=True)
    return 0


def _how(pin: str | None, known: list[str], first: str | None) -> str:
    if pin == "":
        return "from the beginning"
    newest = pin or next(iter(known), first)
    return f"from {newest}" if newest else "from the beginning: it saved no checkpoint"
