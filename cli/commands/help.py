"""`backprop help [COMMAND]`: prints the help of a command, or all commands with what they do."""

import click


@click.command(name="help")
@click.argument("name", required=False, metavar="[COMMAND]")
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Print the help of COMMAND; without it, every command with what it does."""
    from backprop.cli.main import LazyGroup

    root = ctx.find_root()
    group = root.command
    if not isinstance(group, LazyGroup):
        raise TypeError("help belongs to the group of all commands")
    if name is None:
        formatter = root.make_formatter()
        group.format_all_commands(formatter)
        click.echo(formatter.getvalue().rstrip("\n"))
        return
    _, found, _ = group.resolve_command(root, [name])
    if found is not None:
        with click.Context(found, parent=root, info_name=name) as inner:
            click.echo(found.get_help(inner))
