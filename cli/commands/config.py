"""`backprop config`: shows the settings that apply here, and who set each."""

import click

from backprop.cli.options.global_options import global_options, globals_of
from backprop.cli.render.json_views import print_json
from backprop.scheduler.home import layout


@click.command(name="config")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@global_options
@click.pass_context
def command(ctx: click.Context, as_json: bool, config: str | None, verbose: bool, dry_run: bool) -> None:
    """Show the effective settings in this directory and where each comes from.

    A flag beats the project file (backprop.config.json, .backprop.json or [tool.backprop] in pyproject.toml), which
    beats the user file (config.json in Backprop's home), which beats the default.
    """
    from backprop.cli.render.tables import print_table
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.config.settings import load

    given = globals_of(ctx, config, verbose, dry_run)
    effective = load(current_directory(), layout.locate().root, given.config, {})
    rows = effective.describe()
    if as_json:
        print_json(
            [{"key": key, "value": value, "source": source} for key, value, source in effective.values()]
        )
    else:
        print_table(("KEY", "VALUE", "SOURCE"), rows)
    for note in effective.notes:
        click.echo(f"note: {note}", err=True)
