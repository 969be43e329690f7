"""`backprop run`: queues one run, or with --grid, --array, --params or --batch many."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import click
import msgspec

from backprop.cli.context import open_existing, open_home, say_findings, say_who_works, tell
from backprop.cli.help import foreign_words
from backprop.cli.help.completion import complete_files
from backprop.cli.help.sections import SectionedCommand
from backprop.cli.options import setting_options
from backprop.cli.options.global_options import Globals, brief_option, global_options, globals_of
from backprop.cli.options.numbers import MOST_GPUS, whole
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit.queue_options import (
    RequestedPosition,
    group_rules,
    position_options,
    refuse_rules_without_group,
    requested_position,
)
from backprop.scheduler.home import layout
from backprop.worker.environment.provenance import recorder

if TYPE_CHECKING:
    from backprop.cli.submit.submission import Submission
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.spec import GroupRules, QueuePosition
    from backprop.scheduler.store.connection import Database

EPILOG: Final = """\b
Examples:
  backprop run train.py                              10-minute timeboxes until it is done
  backprop run train.py -m 30 -n base -- --lr 3e-4   30 minutes each; the script's own arguments after --
  backprop run train.py -g 8 --retries 2             reserve 8 GB of VRAM; restart twice after a crash
  backprop run --follow train.py                     stream the output until the run ends
  backprop run -- torchrun --nproc-per-node 2 train.py
  backprop run --grid lr=1e-3,1e-4 --grid seed=0..9 train.py -- --lr {lr} --seed {seed}
  backprop run --array 1-100%4 train.py              BACKPROP_ARRAY_INDEX from 1 to 100, four at once
  backprop run --after base --begin 22:00 eval.py    when base has completed, but not before 22:00

Exit codes with --follow: 0 completed, 20 failed, 21 timeboxed, 22 stopped, 23 held, 130 interrupted.
"""


class SplitAtDashes(SectionedCommand):
    """Keeps everything after the first `--` for the script."""

    sections: ClassVar = {
        "Time": (*setting_options.long_options("Time"), "--begin"),
        "GPU and machine": ("--gpus", "--exclusive", *setting_options.long_options("GPU and machine")),
        "On a cluster": setting_options.long_options("On a cluster"),
        "Save and resume": (
            "--resume-from", *setting_options.long_options("Save and resume"), "--recipe", "--checkpoint-glob",
        ),
        "Many runs": (
            "--grid", "--array", "--params", "--batch", "--group", "--parallel", "--keep-best", "--metric",
            "--until", "--group-max-minutes",
        ),
        "Order": ("--priority", "--order", "--hold", "--after", "--after-any", "--after-fail", "--keep"),
        "What it runs": (
            "--name", "--key", "--env", *setting_options.long_options("What it runs"), "--metric-regex", "--run-id",
        ),
        "What is printed": ("--follow", "--quiet", "--json", "--brief", "--dry-run", "--verbose"),
    }  # fmt: skip
    short: ClassVar = (
        "--name", *setting_options.often_used(), "--gpus", "--priority", "--after", "--begin", "--grid", "--follow",
        "--dry-run",
    )  # fmt: skip

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["script_args"] = args[at + 1 :]
        try:
            return super().parse_args(ctx, args[:at])
        except click.NoSuchOption as error:
            if at < len(args) or args[0].startswith("-"):
                raise
            typed = f"backprop {self.name} {args[0]} -- {' '.join(args[1:])}"
            known = [name for one in self.get_params(ctx) for name in one.opts]
            said = foreign_words.for_option(error.option_name, known)
            message = (
                f"No such option: {error.option_name}.{f' {said}.' if said else ''} The script's own arguments come"
                f" after --: {typed}"
            )
            raise click.UsageError(message, ctx) from error


@click.command(cls=SplitAtDashes, name="run", epilog=EPILOG)
@click.argument("script", required=False, shell_complete=complete_files)
@click.argument("surplus", nargs=-1, metavar="[-- SCRIPT ARGS]")
@setting_options.accept("run")
@click.option(
    "-r", "--resume-from", metavar="PATH", shell_complete=complete_files, help="Start from this checkpoint."
)
@click.option("--run-id", metavar="ID", help="Use this id (must be new).")
@click.option(
    "--key",
    metavar="KEY",
    help="Queue it only once: a run that has this key is returned instead. Of a sweep, one per member.",
)
@click.option("-n", "--name", help="Display name; need not be unique.  [default: the script's]")
@click.option(
    "--gpus",
    type=whole(high=MOST_GPUS),
    default=1,
    metavar="N",
    help="Number of GPUs it needs (0 = none).  [default: 1]",
)
@click.option("--exclusive", is_flag=True, help="Do not share its GPUs with other Backprop runs.")
@click.option(
    "--recipe",
    metavar="NAME",
    help="Framework recipe to find its checkpoints and resume it (see docs/recipes.md), or none."
    "  [default: recognised]",
)
@click.option(
    "--checkpoint-glob",
    multiple=True,
    metavar="PATTERN",
    help="Path pattern of its checkpoints; repeatable.  [default: the recipe's]",
)
@click.option(
    "--metric-regex",
    multiple=True,
    metavar="NAME=REGEX",
    help="Read step, epoch, loss or a metric from its output by the first group; repeatable.",
)
@click.option(
    "--env", multiple=True, metavar="KEY=VALUE", help="Set in the script's environment; repeatable."
)
@click.option(
    "--follow",
    is_flag=True,
    help="Stream the output until the run ends (starts it here if no worker is running).",
)
@position_options
@click.option(
    "--grid",
    multiple=True,
    metavar="KEY=V,V,…",
    help="One run per value of {KEY} in arguments, --name or --env. Ranges: a..b[..step]. Repeat for all"
    " combinations.",
)
@click.option("--array", metavar="SPEC", help="One run per {index} of 1-100 or 1,3,5-7; %4: four at once.")
@click.option(
    "--params",
    metavar="FILE",
    shell_complete=complete_files,
    help="One run per row of a .csv or .jsonl, with {column} replaced.",
)
@click.option(
    "--batch",
    metavar="FILE",
    shell_complete=complete_files,
    help="One run per line, as typed after `backprop run`; -: stdin.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the id; of many runs, one id per line.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@brief_option
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    script: str | None,
    surplus: tuple[str, ...],
    follow: bool,
    quiet: bool,
    as_json: bool,
    brief: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Queue SCRIPT as a run and return at once.

    SCRIPT ending in .py runs under this shell's python; anything else is a program. The run keeps the directory, the
    environment and the interpreter of this shell.
    """
    now_s = time.time()
    if surplus:
        raise click.UsageError(
            f"the script's own arguments come after --: backprop run {script} -- {surplus[0]}", ctx
        )
    as_json = ctx.params["as_json"] = as_json or brief
    if as_json and (quiet or follow):
        raise click.UsageError("--json goes with neither --quiet nor --follow", ctx)
    words: list[str] = [*([script] if script else []), *ctx.meta["script_args"]]
    given = globals_of(ctx, config, verbose, dry_run)

    def make(words: Sequence[str], values: Mapping[str, Any]) -> "Submission":
        submission = _submission(words, values, given)
        recorder.look(submission.spec)
        return submission

    if not given.dry_run:
        recorder.begin(layout.locate())
    if values["grid"] or any(values[name] is not None for name in ("array", "params", "batch")):
        from backprop.cli.submit.many import submit_many

        return submit_many.command(ctx, words, given, make, now_s)
    if not words:
        raise click.UsageError("SCRIPT is missing", ctx)
    if values["parallel"] is not None and values["group"] is None:
        raise click.UsageError(
            "--parallel is a rule for a --group; the worker's limit is --max-parallel", ctx
        )
    if values["key"] is not None and (before := _existing(words, values, given)) is not None:
        return _tell_existing(*before, given, follow, quiet, as_json)
    submission = make(words, values)
    request = requested_position(values, now_s)
    group = _group(values)
    if not as_json:
        say_findings(submission.notes, submission.warnings)
    if given.dry_run:
        from backprop.cli.submit.dry_run import describe_start

        position, met = _position(open_existing()[1], request, group)
        if as_json:
            return _print_json(submission, group, None)
        return describe_start(submission, layout.locate(), position, met)
    return _queue(submission, given, request, group, now_s, follow, quiet, as_json)


def _existing(
    words: Sequence[str], values: Mapping[str, Any], given: Globals
) -> "tuple[Home, Database, RunRecord] | None":
    """Return the run that has the key; None where there is none yet.

    Before anything about the command is checked: its files may be gone by now. Raises KeyReused.
    """
    from backprop.cli.submit.enqueue import existing

    home, database = open_existing()
    if database is None:
        return None
    key, told = _key(words, values)
    found = existing(home, database, {key: told}, given.dry_run) if key is not None else {}
    return next(((home, database, run) for run in found.values()), None)


def _tell_existing(
    home: "Home",
    database: "Database",
    run: "RunRecord",
    given: Globals,
    follow: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    from backprop.cli.submit.queued_json import queued_json, queued_text

    if as_json:
        runs = [(run.id, run.name, run.spec)]
        view = queued_json(runs, run.group_name, (), (), queued=not given.dry_run, existing={run.id})
        click.echo(queued_text(view))
    elif quiet:
        click.echo(run.id)
    else:
        click.echo(f"queued before by the same key: {safe(run.name)}, id {run.id} ({run.state})")
    if not follow or given.dry_run:
        return 0
    from backprop.cli.live.follow import follow_run
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.config.settings import load

    settings = load(current_directory(), home.root, given.config, {}).settings
    return follow_run(home, database, run.id, 0, settings)


def _print_json(submission: "Submission", group: "GroupRules | None", run_id: str | None) -> int:
    from backprop.cli.submit.queued_json import queued_json, queued_text

    name, of_group = submission.name, group.name if group is not None else None
    findings = (submission.notes, submission.warnings)
    view = queued_json([(run_id, name, submission.spec)], of_group, *findings, queued=run_id is not None)
    tell(queued_text(view), f"queued {safe(name)}, id {run_id}" if run_id is not None else None)
    return 0


def _submission(words: Sequence[str], values: Mapping[str, Any], given: Globals) -> "Submission":
    from backprop.cli.submit.submission import SubmissionRequest, make_submission

    key, told = _key(words, values)
    return make_submission(
        words,
        setting_options.chosen(values),
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
            metric_regex=values["metric_regex"],
            order=values["order"],
            keep_when_unmet=values["keep"],
            key=key,
            asked=told,
        ),
    )


def _key(words: Sequence[str], values: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return `key` and `asked` of the specification. Raises BadCommand."""
    if values["key"] is None:
        return None, None
    from backprop.cli.submit.enqueue import asked
    from backprop.cli.submit.names import checked_key

    return checked_key(values["key"]), asked(words, values)


def _group(values: Mapping[str, Any]) -> "GroupRules | None":
    if values["group"] is not None:
        return group_rules(values["group"], values)
    refuse_rules_without_group(values)
    return None


def _position(
    database: "Database | None", request: RequestedPosition, group: "GroupRules | None"
) -> "tuple[QueuePosition, Collection[str]]":
    """Return the run's position, and the ids of the parents that have already ended as required."""
    from backprop.cli.submit.parents import Parents

    parents = Parents(database)
    position = parents.position_of(request)
    if group is not None:
        position = msgspec.structs.replace(position, group=group.name)
    return position, parents.met


def _queue(
    submission: "Submission",
    given: Globals,
    request: RequestedPosition,
    group: "GroupRules | None",
    now_s: float,
    follow: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    from backprop.cli.submit.enqueue import enqueue_once
    from backprop.scheduler.store import drain
    from backprop.worker.wakeup import wake_workers

    home, database = open_home()
    position, met = _position(database, request, group)
    run_id, before = enqueue_once(home, database, submission, now_s, position, group)
    if before is not None:
        return _tell_existing(home, database, before, given, follow, quiet, as_json)
    awake = wake_workers(home.locks)
    queued = f"queued {safe(submission.name)}, id {run_id}"
    if as_json:
        _print_json(submission, group, run_id)
    elif quiet:
        tell(run_id, queued)
    else:
        from backprop.cli.submit import recipe_view
        from backprop.scheduler.store.writes.enqueue import conditions

        tell(queued)
        for line in [*recipe_view.lines(submission.spec), *map(" ".join, conditions(position, met))]:
            click.echo(safe(line), err=True)
    if given.verbose:
        click.echo(
            f"  {safe(submission.command)}\n  in {safe(submission.spec.cwd)}, folder {home.run_folder(run_id)}",
            err=True,
        )
    quiet = quiet or as_json
    if not quiet and (drained := drain.drained(database)) is not None:
        from backprop.scheduler.governor.opening import drained_words

        click.echo(safe(drained_words(drained[0])), err=True)
    if follow:
        from backprop.cli.live.follow import follow_run

        return follow_run(home, database, run_id, 0, submission.settings)
    if not quiet:
        say_who_works(home, awake)
    return 0
