"""`backprop run`: queue one run, and say what happens next."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from backprop.cli import options
from backprop.cli.completion import complete_files
from backprop.cli.context import open_existing, open_home
from backprop.cli.global_options import Globals, global_options, globals_of
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit import queue_options as placing
from backprop.scheduler.home import layout

if TYPE_CHECKING:
    from backprop.cli.submit.submission import Submission
    from backprop.scheduler.spec import GroupRules

EPILOG = """\b
Examples:
  backprop run train.py                              timeboxes of 10 minutes, until it is done
  backprop run train.py -m 30 -n base -- --lr 3e-4   30 minutes each; the script's own arguments after --
  backprop run train.py -g 8 --retries 2             8 GB of VRAM reserved; two more tries after a crash
  backprop run --follow train.py                     watch it, and end with it
  backprop run -- torchrun --nproc-per-node 2 train.py
  backprop run --grid lr=1e-3,1e-4 --grid seed=0..9 train.py -- --lr {lr} --seed {seed}
  backprop run --array 1-100%4 train.py              BACKPROP_ARRAY_INDEX from 1 to 100, four at once
  backprop run --after base --begin 22:00 eval.py    once that one has completed, and not before ten

Exit codes with --follow: 0 completed, 20 failed, 21 timeboxed, 22 stopped, 23 held, 130 interrupted.
"""


class SplitAtDashes(click.Command):
    """Keeps everything after the first `--` for the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["script_args"] = args[at + 1 :]
        try:
            return super().parse_args(ctx, args[:at])
        except click.NoSuchOption as error:
            if at < len(args) or args[0].startswith("-"):
                raise
            typed = f"backprop {self.name} {args[0]} -- {' '.join(args[1:])}"
            told = f"No such option: {error.option_name}. The script's own arguments come after --: {typed}"
            raise click.UsageError(told, ctx) from error


@click.command(cls=SplitAtDashes, name="run", epilog=EPILOG)
@click.argument("script", required=False, shell_complete=complete_files)
@click.argument("surplus", nargs=-1, metavar="[-- SCRIPT ARGS]")
@options.setting_options(options.all_keys())
@click.option(
    "-r", "--resume-from", metavar="PATH", shell_complete=complete_files, help="Checkpoint to start from."
)
@click.option("--run-id", metavar="ID", help="Choose the id; one that exists is refused.")
@click.option("-n", "--name", help="A name for people; several runs may share it.  [default: the script's]")
@click.option(
    "--gpus", type=click.IntRange(min=0), default=1, metavar="N", help="GPUs it needs; 0: none.  [default: 1]"
)
@click.option("--exclusive", is_flag=True, help="No other run of ours beside it on its GPUs.")
@click.option(
    "--recipe",
    metavar="NAME",
    help="How it saves and resumes, if it does not tell: a name of docs/recipes.md, or none.  [default: recognised]",
)
@click.option(
    "--checkpoint-glob",
    multiple=True,
    metavar="PATTERN",
    help="Where its checkpoints appear; repeatable.  [default: the recipe's]",
)
@click.option(
    "--env", multiple=True, metavar="KEY=VALUE", help="Set in the script's environment; repeatable."
)
@click.option(
    "--follow", is_flag=True, help="Show the output and end with the run; be its worker if there is none."
)
@placing.position_options
@click.option(
    "--grid",
    multiple=True,
    metavar="KEY=V,V,…",
    help="A run for each value, {KEY} replaced in arguments, --name, --env; a..b[..step]; several: their product.",
)
@click.option(
    "--array", metavar="SPEC", help="A run for each of 1-100 or 1,3,5-7, {index} replaced; %4: four at once."
)
@click.option(
    "--params",
    metavar="FILE",
    shell_complete=complete_files,
    help="A run for each row of a .csv or .jsonl, {column} replaced.",
)
@click.option(
    "--batch",
    metavar="FILE",
    shell_complete=complete_files,
    help="A run for each line, as typed after `backprop run`; -: stdin.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone; of many, one a line.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    script: str | None,
    surplus: tuple[str, ...],
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
    now_s = time.time()
    if surplus:
        raise click.UsageError(
            f"the script's own arguments come after --: backprop run {script} -- {surplus[0]}", ctx
        )
    words: list[str] = [*([script] if script else []), *ctx.meta["script_args"]]
    given = globals_of(ctx, config, verbose, dry_run)

    def make(words: Sequence[str], values: Mapping[str, Any]) -> "Submission":
        return _submission(words, values, given)

    if values["grid"] or any(values[name] is not None for name in ("array", "params", "batch")):
        from backprop.cli.submit import submit_many

        return submit_many.command(ctx, words, given, make, now_s)
    if not words:
        raise click.UsageError("SCRIPT is missing", ctx)
    if values["parallel"] is not None and values["group"] is None:
        raise click.UsageError("--parallel is a rule for a --group; for the worker: --max-parallel", ctx)
    wanted = make(words, values)
    wish = placing.requested_position(values, now_s)
    group = placing.group_of(values["group"], values["parallel"])
    if values["keep_best"] is not None or values["metric"] is not None:
        from backprop.cli.submit import queue_options

        group = queue_options.with_keeping(group, values["keep_best"], values["metric"])
    for note in wanted.notes:
        click.echo(f"note: {safe(note)}", err=True)
    if given.dry_run:
        from backprop.cli.submit.dry_run import describe_start

        parents = placing.Parents(open_existing()[1])
        place = parents.place_of(wish)
        if group is not None:
            place = msgspec.structs.replace(place, group=group.name)
        return describe_start(wanted, layout.locate(), place, parents.met)
    return _queue(wanted, given, _Where(wish, group), now_s, follow, quiet)


class _Where(msgspec.Struct, frozen=True):
    placing: "placing.RequestedPosition"
    group: "GroupRules | None"


def _submission(words: Sequence[str], values: Mapping[str, Any], given: Globals) -> "Submission":
    from backprop.cli.submit.submission import SubmissionRequest, submission

    return submission(
        words,
        options.flags_of(values),
        options.option_names(),
        given.config,
        layout.locate(),
        SubmissionRequest(
            resume_from=values["resume_from"],
            run_id=values["run_id"],
            name=values["name"],
            env=values["env"],
            gpus=values["gpus"],
            exclusive=values["exclusive"],
            recipe=values["recipe"],
            globs=values["checkpoint_glob"],
            order=values["order"],
            keep_when_unmet=values["keep"],
        ),
    )


def _queue(
    wanted: "Submission", given: Globals, where: _Where, now_s: float, follow: bool, quiet: bool
) -> int:
    from backprop.cli.submit.submission import enqueue
    from backprop.scheduler.store import drain
    from backprop.worker.wakeup import wake_workers

    home, database = open_home()
    parents = placing.Parents(database)
    place = parents.place_of(where.placing)
    if where.group is not None:
        place = msgspec.structs.replace(place, group=where.group.name)
    run_id = enqueue(home, database, wanted, now_s, place, where.group)
    awake = wake_workers(home.locks)
    if quiet:
        click.echo(run_id)
    else:
        from backprop.cli.submit.recipe_view import lines
        from backprop.scheduler.store.writes import enqueue as newruns

        click.echo(f"queued {safe(wanted.name)}, id {run_id}")
        for line in [*lines(wanted.spec), *map(" ".join, newruns.conditions(place, parents.met))]:
            click.echo(safe(line), err=True)
    if given.verbose:
        click.echo(
            f"  {safe(wanted.command)}\n  in {safe(wanted.spec.cwd)}, folder {home.run_folder(run_id)}",
            err=True,
        )
    if not quiet and (drained := drain.drained(database)) is not None:
        from backprop.scheduler.governor.opening import drained_words

        click.echo(safe(drained_words(drained[0])), err=True)
    if follow:
        from backprop.cli.follow import follow_run

        return follow_run(home, database, run_id, 0, wanted.settings)
    if not awake and not quiet:
        click.echo("no worker is running; start one (in tmux, say) with: backprop worker", err=True)
    return 0
