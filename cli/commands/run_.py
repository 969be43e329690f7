"""`backprop run`: queue one run, and say what happens next."""

import time
from typing import TYPE_CHECKING, Any

import click

from backprop.cli import options
from backprop.cli.safe import safe
from backprop.cli.session import Globals, global_options, globals_of, open_home
from backprop.scheduler import home as homes

if TYPE_CHECKING:
    from backprop.cli.submission import Submission

EPILOG = """\b
Examples:
  backprop run train.py                              timeboxes of 10 minutes, until it is done
  backprop run train.py -m 30 -n base -- --lr 3e-4   30 minutes each; the script's own arguments after --
  backprop run train.py -g 8 --retries 2             8 GB of VRAM reserved; two more tries after a crash
  backprop run --follow train.py                     watch it, and end with it
  backprop run -- torchrun --nproc-per-node 2 train.py

Exit codes with --follow: 0 completed, 20 failed, 21 timeboxed, 22 stopped, 23 held, 130 interrupted.
"""


class SplitAtDashes(click.Command):
    """Keeps everything after the first `--` for the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["script_args"] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@click.command(cls=SplitAtDashes, name="run", epilog=EPILOG)
@click.argument("script", required=False)
@click.argument("surplus", nargs=-1, metavar="[-- SCRIPT ARGS]")
@options.setting_options(options.all_keys())
@click.option("-r", "--resume-from", metavar="PATH", help="Checkpoint to start from.")
@click.option("--run-id", metavar="ID", help="Choose the id; one that exists is refused.")
@click.option("-n", "--name", help="A name for people; several runs may share it.  [default: the script's]")
@click.option(
    "--gpus", type=click.IntRange(min=0), default=1, metavar="N", help="GPUs it needs; 0: none.  [default: 1]"
)
@click.option("--exclusive", is_flag=True, help="No other run of ours beside it on its GPUs.")
@click.option(
    "--env", multiple=True, metavar="KEY=VALUE", help="Set in the script's environment; repeatable."
)
@click.option(
    "--follow", is_flag=True, help="Show the output and end with the run; be its worker if there is none."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    script: str | None,
    surplus: tuple[str, ...],
    resume_from: str | None,
    run_id: str | None,
    name: str | None,
    gpus: int,
    exclusive: bool,
    env: tuple[str, ...],
    follow: bool,
    quiet: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Queue SCRIPT as a run and return at once.

    SCRIPT ending in .py runs under this shell's python; anything else is a program. The directory, the environment
    and the interpreter of this shell are remembered.
    """
    from backprop.cli.submission import Asked, submission

    if surplus:
        raise click.UsageError(
            f"the script's own arguments come after --: backprop run {script} -- {surplus[0]}", ctx
        )
    words: list[str] = [*([script] if script else []), *ctx.meta["script_args"]]
    if not words:
        raise click.UsageError("SCRIPT is missing", ctx)
    given = globals_of(ctx, config, verbose, dry_run)
    wanted = submission(
        words,
        options.flags_of(values),
        options.option_names(),
        given.config,
        homes.locate(),
        Asked(resume_from=resume_from, run_id=run_id, name=name, env=env, gpus=gpus, exclusive=exclusive),
    )
    for note in wanted.notes:
        click.echo(f"note: {safe(note)}", err=True)
    if given.dry_run:
        from backprop.cli.dry_run import describe_start

        return describe_start(wanted, homes.locate())
    return _queue(wanted, given, follow, quiet)


def _queue(wanted: "Submission", given: Globals, follow: bool, quiet: bool) -> int:
    from backprop.cli.submission import enqueue
    from backprop.worker.wake import wake_workers

    home, database = open_home()
    run_id = enqueue(home, database, wanted, time.time())
    awake = wake_workers(home.locks)
    if quiet:
        click.echo(run_id)
    else:
        click.echo(f"queued {safe(wanted.name)}, id {run_id}")
    if given.verbose:
        click.echo(
            f"  {safe(wanted.command)}\n  in {safe(wanted.spec.cwd)}, folder {home.run_folder(run_id)}",
            err=True,
        )
    if follow:
        from backprop.cli.follow import follow_run

        return follow_run(home, database, run_id, wanted.settings)
    if not awake and not quiet:
        click.echo("no worker is running; start one (in tmux, say) with: backprop worker", err=True)
    return 0
