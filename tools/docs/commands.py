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
beginning of one, or a name; where several may be given, a group too. See also: [exit codes](exit-codes.md), keys of
the [configuration](configuration.md), fields of [`--json`](json.md), and [a sample of each command](commands.md).
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


def usage(name: str, command: click.Command) -> str:
    """Return a command's line of usage."""
    words = [f"backprop {name}", _options_word(command).strip(), *map(_argument, arguments(command))]
    return " ".join(" ".join(words).split())


def _section(name: str, command: click.Command) -> str:
    text = [f"## backprop {name}\n", f"```\n{usage(name, command)}\n```\n", f"{_prose(command.help)}\n"]
    if table := _table(command):
        text.append(table)
    if command.epilog:
        text.append(f"```\n{_verbatim(command.epilog)}\n```\n")
    return "\n".join(text)


def _table(command: click.Command) -> str:
    rows = [f"| {_spelling(one)} | {_cell(one.help or '')}{default(one)} |" for one in listed(command)]
    return "\n".join(["| option | |", "| --- | --- |", *rows]) + "\n" if rows else ""


def listed(command: click.Command) -> Iterator[click.Option]:
    """Return the options that the help shows."""
    return (one for one in command.params if isinstance(one, click.Option) and not one.hidden)


def arguments(command: click.Command) -> Iterator[click.Argument]:
    """Return the arguments of a command, in their order."""
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
    return "[OPTIONS] " if any(True for _ in listed(command)) else ""


def _spelling(one: click.Option) -> str:
    names = [*one.opts, *one.secondary_opts]
    value = value_of(one)
    if not value:
        return ", ".join(f"`{name}`" for name in names)
    return ", ".join([*(f"`{name}`" for name in names[:-1]), f"`{names[-1]} {value}`"]).replace("|", "\\|")


def value_of(one: click.Option) -> str:
    """Return what stands for an option's value, empty for a flag."""
    if one.is_flag or one.count:
        return ""
    if one.metavar is None and isinstance(one.type, click.Choice):
        return "|".join(str(choice) for choice in one.type.choices)
    return one.metavar or PLACEHOLDERS.get(one.type.name, one.type.name.upper())


def default(one: click.Option) -> str:
    """Return the default that the help does not say itself."""
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
    print_page("docs/cli.md", manual, "commands")
