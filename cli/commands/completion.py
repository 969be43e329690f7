"""`backprop completion SHELL`: prints what a shell needs to complete commands, options, runs and groups."""

from typing import Final

import click

VARIABLE: Final = "_BACKPROP_COMPLETE"
"""By click's rule for the program's name. The script asks the program itself, so it never becomes outdated."""
EPILOG: Final = """\b
Add one of these to your shell's startup file:
  bash   eval "$(backprop completion bash)"          in ~/.bashrc
  zsh    eval "$(backprop completion zsh)"           in ~/.zshrc, after compinit
  fish   backprop completion fish | source           in ~/.config/fish/config.fish
"""


@click.command(name="completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL: commands, options, and the newest runs by id, name and group."""
    click.echo(script(shell))


def script(shell: str) -> str:
    """Return the completion script of bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    from backprop.cli.main import backprop

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"completion for {shell} is not supported")
    # Not `source()`: for bash it first asks the bash on PATH for its version, and prints a warning if there is none.
    completion = kind(backprop, {}, "backprop", VARIABLE)
    return completion.source_template % completion.source_vars()
