"""Prints the completion script of a shell, as the wheel installs it: `python -m tools.docs.completions bash`."""

import argparse
from typing import Final

from backprop.cli.commands.completion import script

FILES: Final = {"bash": "backprop.bash", "zsh": "_backprop", "fish": "backprop.fish"}
"""By shell, the file in tools/share. The wheel puts each where its shell looks."""


def main() -> None:
    """Print the script of the shell that is named."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.docs.completions",
        description="Print a script of tools/share. A test compares the two; redirect the output there.",
    )
    parser.add_argument("shell", choices=tuple(FILES))
    print(script(parser.parse_args().shell))


if __name__ == "__main__":
    main()
