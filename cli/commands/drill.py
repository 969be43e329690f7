"""`backprop drill SCRIPT`: tests that a script saves and resumes, and measures what a restart costs."""

from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.commands.run import SplitAtDashes
from backprop.cli.context import say_findings
from backprop.cli.exit_codes import DRILL_FAILED, INTERRUPTED
from backprop.cli.help.completion import complete_files
from backprop.cli.options import setting_options
from backprop.cli.options.global_options import global_options, globals_of
from backprop.cli.options.numbers import MOST_GPUS, Seconds, whole
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.home import layout

if TYPE_CHECKING:
    from backprop.cli.drill.costs import Costs
    from backprop.cli.drill.outlook import Outlook
    from backprop.cli.drill.rehearsal import Rehearsal
    from backprop.cli.drill.verdict import DrillVerdict

EPILOG: Final = """\b
Examples:
  backprop drill train.py -- --out /tmp/drill     with outputs of its own
  backprop drill --seconds 60 train.py            for a script that starts slowly or saves seldom

It runs two segments. The script writes its normal outputs. Nothing is queued.
Exit codes: 0 it resumes, 25 it does not or that is unclear, 130 interrupted.
"""


@click.command(cls=SplitAtDashes, name="drill", epilog=EPILOG)
@click.argument("script", required=False, shell_complete=complete_files)
@click.argument("surplus", nargs=-1, metavar="[-- SCRIPT ARGS]")
@click.option(
    "--seconds",
    type=Seconds(min=0, min_open=True, max=86400),
    default=20.0,
    metavar="N",
    help="Length of each of the two segments.  [default: 20]",
)
@setting_options.accept("drill")
@click.option(
    "--gpus",
    type=whole(high=MOST_GPUS),
    default=1,
    metavar="N",
    help="Number of GPUs it needs (0 = none).  [default: 1]",
)
@click.option(
    "--recipe",
    metavar="NAME",
    help="Framework recipe to find its checkpoints and resume it (see docs/recipes.md), or none.",
)
@click.option(
    "--checkpoint-glob", multiple=True, metavar="PATTERN", help="Path pattern of its checkpoints; repeatable."
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
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    script: str | None,
    surplus: tuple[str, ...],
    seconds: float,
    gpus: int,
    recipe: str | None,
    checkpoint_glob: tuple[str, ...],
    metric_regex: tuple[str, ...],
    env: tuple[str, ...],
    as_json: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Test that SCRIPT saves and resumes, in about a minute: run it, stop it, resume it.

    Prints how long it takes to start and to save, its peak memory, and a timebox that loses little to restarts.
    """
    from backprop.cli.submit.submission import SubmissionRequest, make_submission

    if surplus:
        raise click.UsageError(
            f"the script's own arguments come after --: backprop drill {script} -- {surplus[0]}", ctx
        )
    words: list[str] = [*([script] if script else []), *ctx.meta["script_args"]]
    if not words:
        raise click.UsageError("SCRIPT is missing", ctx)
    given = globals_of(ctx, config, verbose, dry_run)
    asked = SubmissionRequest(
        env=env, gpus=gpus, recipe=recipe, globs=checkpoint_glob, metric_regex=metric_regex
    )
    home = layout.locate()
    wanted = make_submission(words, setting_options.chosen(values), given.config, home, asked)
    if given.dry_run:
        from backprop.cli.submit.dry_run import describe_drill

        return describe_drill(wanted, home, seconds)
    from backprop.cli.drill.outlook import outlook
    from backprop.cli.drill.rehearsal import rehearse
    from backprop.cli.drill.verdict import Proof, judge
    from backprop.scheduler.governor.box_end import rule_of

    def say(text: str) -> None:
        click.echo(safe(text), err=True)

    say_findings(wanted.notes, wanted.warnings)
    say(f"running two {seconds:g}-second segments; note: the script writes its normal outputs")
    rehearsal = rehearse(layout.ensure(home), wanted, seconds, say)
    if rehearsal.interrupted:
        say("interrupted; its processes and its temporary home are gone")
        return INTERRUPTED
    rule, box_s = rule_of(wanted.spec), wanted.spec.timebox_s
    verdict = judge(
        rehearsal.segments,
        rehearsal.run.reason,
        rehearsal.broken,
        seconds,
        rule=rule,
        at_best=rehearsal.at_best,
        guessed=wanted.spec.plan is not None and wanted.spec.plan.guessed,
    )
    costs = _costs(rehearsal)
    told = outlook(verdict, rehearsal.segments, costs, rule, box_s)
    if as_json:
        from backprop.cli.render.json_views import print_json

        print_json(_view(rehearsal, verdict, costs, told))
    else:
        _print(rehearsal, verdict, costs, told)
    if verdict.proof is not Proof.CHAINABLE:
        for line in rehearsal.tail:
            say(f"| {line}")
    return 0 if verdict.proof is Proof.CHAINABLE else DRILL_FAILED


def _costs(rehearsal: "Rehearsal") -> "Costs | None":
    """Return the measured costs; None when the script never became ready."""
    from statistics import median

    from backprop.cli.drill.costs import Costs

    ready_s = [segment.ready_s for segment in rehearsal.segments if segment.ready_s is not None]
    gaps_s = [gap_s for segment in rehearsal.segments for gap_s in segment.gaps_s]
    if not ready_s:
        return None
    return Costs(
        ready_s=max(ready_s),
        save_s=max((one.save_s for one in rehearsal.segments if one.save_s is not None), default=0.0),
        saves_when_asked=any(one.saved_when_asked for one in rehearsal.segments),
        gap_s=median(gaps_s) if gaps_s else None,
    )


def _print(
    rehearsal: "Rehearsal", verdict: "DrillVerdict", costs: "Costs | None", told: "Outlook | None"
) -> None:
    from backprop.cli.drill.costs import lost_share, recommended_min
    from backprop.cli.drill.verdict import SHOWN, Proof
    from backprop.cli.render.json_views import duration, size
    from backprop.cli.render.tables import print_pairs
    from backprop.scheduler.governor.model import amount

    pairs = [("verdict", f"{SHOWN[verdict.proof]}: {verdict.why}")]
    pairs += [("advice", line) for line in verdict.advice]
    if told is not None:
        pairs += [("at a timebox", told.timebox), ("a resume", told.resume), ("a reboot", told.reboot)]
    if costs is not None:
        pairs.append(("startup", f"{duration(costs.ready_s)} to its first step or line"))
    if costs is not None and any(one.save_s is not None for one in rehearsal.segments):
        from backprop.cli.drill.outlook import only_when_asked

        alone = ", and only then" if only_when_asked(rehearsal.segments) else ""
        when = f"it saves when asked{alone}" if costs.saves_when_asked else "it does not save when asked"
        pairs.append(("stop", f"{duration(costs.save_s)} from the signal to its end; {when}"))
    if rehearsal.checkpoint is not None:
        every = (
            f", one every {duration(costs.gap_s)}" if costs is not None and costs.gap_s is not None else ""
        )
        pairs.append(
            ("checkpoint", f"{size(rehearsal.checkpoint.size_bytes)}{every}: {rehearsal.checkpoint.path}")
        )
    pairs.append(
        ("peak RAM", amount(rehearsal.ram_peak_mib) if rehearsal.ram_peak_mib is not None else "unknown")
    )
    pairs.append(
        ("peak VRAM", amount(rehearsal.vram_peak_mib) if rehearsal.vram_peak_mib is not None else "unknown")
    )
    if costs is not None and verdict.proof is Proof.CHAINABLE:
        box, least = recommended_min(costs)
        more = f"; below 5% from {least} min on" if least < box else ""
        pairs.append(("timebox", f"-m {box}: {lost_share(costs, box * 60):.1%} lost to restarts{more}"))
    print_pairs(pairs)


def _view(
    rehearsal: "Rehearsal", verdict: "DrillVerdict", costs: "Costs | None", told: "Outlook | None"
) -> dict[str, object]:
    from backprop.cli.drill.costs import lost_share, recommended_min
    from backprop.cli.drill.verdict import Proof

    chainable = costs is not None and verdict.proof is Proof.CHAINABLE
    box, least = recommended_min(costs) if costs is not None and chainable else (None, None)
    return {
        "verdict": verdict.proof.value,
        "reason": verdict.why,
        "advice": list(verdict.advice),
        "at_timebox": told.at_timebox if told is not None else None,
        "timebox": told.timebox if told is not None else None,
        "resume": told.resume if told is not None else None,
        "resumed_from": told.resumed_from if told is not None else None,
        "reboot": told.reboot if told is not None else None,
        "segments": [
            {
                "outcome": one.outcome,
                "reason": one.reason,
                "ready_s": one.ready_s,
                "save_s": one.save_s,
                "cut_cost_s": one.cut_cost_s,
                "checkpoint_used": one.used,
                "checkpoints": one.saved,
                "checkpoints_unasked": one.saved_unasked,
            }
            for one in rehearsal.segments
        ],
        "ready_s": costs.ready_s if costs is not None else None,
        "save_s": costs.save_s if costs is not None else None,
        "saves_when_asked": costs.saves_when_asked if costs is not None else None,
        "checkpoint": rehearsal.checkpoint.path if rehearsal.checkpoint is not None else None,
        "checkpoint_size_bytes": rehearsal.checkpoint.size_bytes
        if rehearsal.checkpoint is not None
        else None,
        "checkpoint_every_s": costs.gap_s if costs is not None else None,
        "ram_peak_mib": rehearsal.ram_peak_mib,
        "vram_peak_mib": rehearsal.vram_peak_mib,
        "timebox_min": box,
        "least_timebox_min": least,
        "lost_share": lost_share(costs, box * 60) if costs is not None and box is not None else None,
    }
