"""`backprop export`: writes runs, segments and metrics for other programs."""

from pathlib import Path
from typing import Any, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import global_options, globals_of
from backprop.cli.render.terminal_text import safe

EPILOG: Final = """\b
Examples:
  backprop export --format csv -o runs.csv              one line per run, with its last metrics
  backprop export --group sweep --what metrics          every stored value, as JSON
  backprop export --tensorboard tb && tensorboard --logdir tb
  backprop export --format original -o experiments.json
"""


@click.command(name="export", epilog=EPILOG)
@run_selection.run_arguments
@click.option(
    "--format", "kind", type=click.Choice(["json", "csv", "original"]), default=None,
    help="JSON, CSV, or (original) the npm version's experiments.json.  [default: json]",
)  # fmt: skip
@click.option(
    "--what", type=click.Choice(["runs", "segments", "metrics", "all"]), default=None,
    help="Table to write; all: every table in one JSON object.  [default: runs]",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write to this file, whole or not at all (- = stdout).  [default: -]",
)  # fmt: skip
@click.option(
    "--tensorboard", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Write the metrics as TensorBoard events instead, one folder per run.",
)  # fmt: skip
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    kind: str | None,
    what: str | None,
    output: Path | None,
    tensorboard: Path | None,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Write RUNs (default: all) as JSON or CSV, in the npm version's format, or for TensorBoard."""
    from backprop.cli.render.export import TABLES, Exporter, as_csv, as_json, deliver
    from backprop.scheduler.store.reads import queries, selection

    if tensorboard is not None and (kind, what, output) != (None, None, None):
        raise click.UsageError("--tensorboard cannot be combined with --format, --what or --output", ctx)
    if kind == "original" and what not in (None, "runs"):
        raise click.UsageError("--format original holds runs only; leave out --what", ctx)
    if kind == "csv" and what == "all":
        raise click.UsageError("CSV holds one table: use --what runs, segments or metrics", ctx)
    home, database = need_existing()
    chosen = selection.choose(database, runs, run_selection.filters_of(values))
    export = Exporter(home, database, queries.runs_by_id(database, [one.id for one in chosen]))
    dry = globals_of(ctx, config, verbose, dry_run).dry_run
    if tensorboard is not None and dry:
        click.echo(
            f"would write the metrics of {run_selection.counted(len(chosen))} into {safe(str(tensorboard))}"
        )
        return 0
    if tensorboard is not None:
        count = export.tensorboard(tensorboard)
        click.echo(
            f"wrote the metrics of {run_selection.counted(count)} of {len(chosen)} into {tensorboard}",
            err=True,
        )
        return 0
    if kind == "original":
        text = as_json(export.npm())
    elif what == "all":
        text = as_json({name: export.table(name) for name in TABLES} | {"checkpoints": export.checkpoints()})
    else:
        rows = export.table(what or "runs")
        text = as_csv(rows) if kind == "csv" else as_json(rows)
    deliver(text, output, dry_run=dry)
    return 0
