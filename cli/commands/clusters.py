"""`backprop clusters`: shows the clusters that runs may go to, and what keeps jobs from them."""

import click

from backprop.cli.context import open_existing, tell
from backprop.cli.options.global_options import global_options, globals_of


@click.command(name="clusters")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@global_options
@click.pass_context
def command(ctx: click.Context, as_json: bool, config: str | None, verbose: bool, dry_run: bool) -> None:
    """Show each cluster: whether it answers, its jobs, and why nothing is handed over.

    What is shown was noted by a worker; this asks no cluster. To check one: backprop doctor --on CLUSTER.
    """
    from backprop.cli.render.jobs import cluster_rows
    from backprop.cli.render.json_views import print_json
    from backprop.cli.render.tables import print_table
    from backprop.scheduler.config.settings import load

    given = globals_of(ctx, config, verbose, dry_run)
    home, database = open_existing()
    configured = load(None, home.root, given.config, {}).settings.clusters
    found = cluster_rows.views(database, configured)
    if as_json:
        print_json([one.as_json() for one in found])
    elif found:
        columns = ("NAME", "ENGINE", "QUEUED", "WAITING", "RUNNING", "MOST", "ANSWERED", "NOW")
        print_table(columns, [one.row() for one in found], ("QUEUED", "WAITING", "RUNNING", "MOST"))
    else:
        tell("no cluster is configured; see docs/cluster.md")
