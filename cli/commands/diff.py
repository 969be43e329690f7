"""`backprop diff A B`: shows in what two runs differ."""

from typing import Final

import click

from backprop.cli.context import need_existing
from backprop.cli.help.completion import complete_runs
from backprop.cli.options.global_options import brief_option

EPILOG: Final = """\b
Examples:
  backprop diff base try-7          what was changed between the two
  backprop diff base try-7 --stat   names of files alone
  backprop diff 3fa2 9be0 --json    for programs
"""


@click.command(name="diff", epilog=EPILOG)
@click.argument("a", metavar="A", shell_complete=complete_runs)
@click.argument("b", metavar="B", shell_complete=complete_runs)
@click.option("--stat", is_flag=True, help="Name the files that differ, without their contents.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@brief_option
def command(a: str, b: str, stat: bool, as_json: bool, brief: bool) -> None:
    """Show in what runs A and B differ: code, arguments, environment, packages, settings, last metrics.

    Code is compared as far as it was noted when they were queued. Values that look like credentials are never shown.
    """
    from backprop.cli.render.differences.two_runs import differences
    from backprop.scheduler.store.reads import queries

    home, database = need_existing()
    runs = queries.find_run(database, a), queries.find_run(database, b)
    found = differences(home, database, *runs, contents=not (stat or brief))
    if brief:
        import json

        from backprop.cli.render.differences.as_json import brief_json

        click.echo(json.dumps(brief_json(found)))
        return
    if as_json:
        from backprop.cli.render.differences.as_json import differences_json
        from backprop.cli.render.json_views import print_json

        print_json(differences_json(found))
        return
    from backprop.cli.render.differences.as_text import print_differences

    print_differences(found)
