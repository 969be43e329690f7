"""The commands and their options as Markdown, out of their own help: `python -m tools.docs.commands > docs/cli.md`.

Made from the parameters and not from the text of `--help`, whose layout differs from one version of Click to another.
"""

import re
from collections.abc import Iterator
from typing import Final

import click

from backprop.cli.main import backprop
from tools.docs.printing import print_page

HEAD: Final = """\
# Commands

Made of the program's own help by `python -m tools.docs.commands > docs/cli.md`; a test compares them. RUN is an id, the
beginning of one, or a name; where several may be given, a group too. Exit codes are in the
[README](../README.md#exit-codes), keys of the configuration in [configuration.md](configuration.md), the fields of
`--json` in [json.md](json.md).
"""
PLACEHOLDERS: Final = {
    "integer": "N",
    "integer range": "N",
    "float": "NUMBER",
    "text": "TEXT",
    "path": "PATH",
}


def manual() -> str:
    """The whole page."""
    context = click.Context(backprop, info_name="backprop")
    names = backprop.list_commands(context)
    parts = [
        HEAD,
        f"```\nbackprop {_options_word(backprop)}COMMAND …\n```\n\n{_table(backprop)}",
        "\n".join(f"- [`backprop {name}`](#backprop-{name})" for name in names) + "\n",
    ]
    for name in names:
        command = backprop.get_command(context, name)
        if command is not None:
            parts.append(_section(name, command))
    return "\n".join(parts)


def _section(name: str, command: click.Command) -> str:
    usage = " ".join(
        [f"backprop {name}", _options_word(command).strip(), *map(_argument, _arguments(command))]
    )
    text = [f"## backprop {name}\n", f"```\n{' '.join(usage.split())}\n```\n", f"{_prose(command.help)}\n"]
    if table := _table(command):
        text.append(table)
    if command.epilog:
        text.append(f"```\n{_verbatim(command.epilog)}\n```\n")
    return "\n".join(text)


def _table(command: click.Command) -> str:
    rows = [f"| {_spelling(one)} | {_cell(one.help or '')}{_default(one)} |" for one in _listed(command)]
    return "\n".join(["| option | |", "| --- | --- |", *rows]) + "\n" if rows else ""


def _listed(command: click.Command) -> Iterator[click.Option]:
    return (one for one in command.params if isinstance(one, click.Option) and not one.hidden)


def _arguments(command: click.Command) -> Iterator[click.Argument]:
    return (one for one in command.params if isinstance(one, click.Argument))


def _argument(one: click.Argument) -> str:
    if one.metavar is not None:
        return one.metavar
    word = (one.name or "").upper()
    if isinstance(one.type, click.Choice):
        word = "|".join(str(choice) for choice in one.type.choices)
    word = f"{word}..." if one.nargs != 1 else word
    return word if one.required else f"[{word}]"


def _options_word(command: click.Command) -> str:
    return "[OPTIONS] " if any(True for _ in _listed(command)) else ""


def _spelling(one: click.Option) -> str:
    names = [*one.opts, *one.secondary_opts]
    if one.is_flag or one.count:
        return ", ".join(f"`{name}`" for name in names)
    value = one.metavar
    if value is None and isinstance(one.type, click.Choice):
        value = "|".join(str(choice) for choice in one.type.choices)
    value = value or PLACEHOLDERS.get(one.type.name, one.type.name.upper())
    return ", ".join([*(f"`{name}`" for name in names[:-1]), f"`{names[-1]} {value}`"]).replace("|", "\\|")


def _default(one: click.Option) -> str:
    """Defaults that the help does not say itself."""
    shown = one.show_default and one.default is not None and not one.is_flag
    return f"  [default: {one.default}]" if shown else ""


def _cell(text: str) -> str:
    """`*` and `<` would mean something."""
    return re.sub(r"([|*<>])", r"\\\1", " ".join(text.split()))


def _prose(text: str | None) -> str:
    paragraphs = [" ".join(part.split()) for part in (text or "").split("\n\n")]
    return "\n\n".join(re.sub(r"([*<>])", r"\\\1", part) for part in paragraphs if part)


def _verbatim(text: str) -> str:
    return "\n".join(line for line in text.strip("\n").splitlines() if line.strip() != "\b").strip("\n")


if __name__ == "__main__":
    print_page("cli.md", manual, "commands")
