"""`backprop stop RUN…`: ask runs to checkpoint and end."""

import contextlib
import time

import click

from backprop.cli.safe import safe
from backprop.cli.session import global_options, globals_of, need_existing


@click.command(name="stop")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@global_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool
) -> int:
    """Stop RUNs: a waiting one at once, a running one after it has had its grace to save. `resume` continues them."""
    from backprop.scheduler import folders, queue, reads
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.folders import OutcomeFile
    from backprop.scheduler.lifecycle import LIVE, State
    from backprop.worker import locks
    from backprop.worker.local import LocalPlace
    from backprop.worker.wake import wake_workers

    home, database = need_existing()
    # Every name is understood before anything is stopped.
    found = list({run.id: run for run in (reads.find_run(database, name) for name in runs)}.values())
    if globals_of(ctx, config, verbose, dry_run).dry_run:
        for run in found:
            click.echo(f"would stop {safe(run.name)} ({run.id}), {run.state}")
        return 0
    code = 0
    states: dict[str, State] = {}
    for run in found:
        try:
            states[run.id] = queue.ask_to_stop(database, run, time.time())
        except IllegalMove as error:
            click.echo(f"backprop: {error}", err=True)
            code = error.exit_code
    wake_workers(home.locks)
    for run in found:
        state = states.get(run.id)
        if state in LIVE:
            # Its worker is dead: another one, if there is any, may take a while to notice.
            if run.worker is None or not locks.worker_alive(home.locks, run.worker):
                LocalPlace(home).ask(run.id, run.segment)
            click.echo(f"stopping {safe(run.name)} ({run.id}): it has {run.spec.grace_s:g} s to save")
        elif state is not None:
            now = reads.run_by_id(database, run.id) or run
            outcome = OutcomeFile(
                state=state.value, reason=now.reason, segment=run.segment, ended_at_s=time.time()
            )
            with contextlib.suppress(OSError):
                folders.write_outcome(home.run_folder(run.id), outcome)
            click.echo(f"stopped {safe(run.name)} ({run.id})")
    return code
