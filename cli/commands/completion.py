"""`backprop completion SHELL`: what a shell needs to complete commands, options, runs and groups."""

from typing import Final

import click

VARIABLE: Final = "_BACKPROP_COMPLETE"
"""By click's rule for the program's name; it asks the program itself, so that the script never grows old."""
EPILOG: Final = """\b
Put one of these where your shell starts:
  bash   eval "$(backprop completion bash)"          in ~/.bashrc
  zsh    eval "$(backprop completion zsh)"           in ~/.zshrc, after compinit
  fish   backprop completion fish | source           in ~/.config/fish/config.fish
"""


@click.command(name="completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL: commands, options, and the newest runs by id, name and group."""
    from click.shell_completion import get_completion_class

    from backprop.cli.main import backprop

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"nothing is known about completion in {shell}")
    # Not `source()`: for bash that first asks the bash on PATH for its version, and talks if there is none.
    made = kind(backprop, {}, "backprop", VARIABLE)
    click.echo(made.source_template % made.source_vars())
