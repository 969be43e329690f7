"""Writes the manual page backprop(1) out of the program's own help: `python -m tools.docs.man_page`.

As docs/cli.md, it is made of the parameters, and not of the text of `--help`. (man-pages(7), groff_man(7))
"""

from collections.abc import Iterator
from typing import Final

import click

from backprop.cli.exit_codes import MEANINGS
from backprop.cli.main import backprop
from tools.docs.commands import default, listed, usage, value_of
from tools.docs.printing import print_page

NAME: Final = "run a queue of training runs: timeboxed, checkpointed, resumed"
DESCRIPTION: Final = """\
Backprop queues training runs on one Linux machine and lets them take turns. Each gets a timebox, is asked to save, and
is resumed from its checkpoint until it is done. Nothing goes over the network. RUN is an id, the beginning of one, a
name, or @ for the newest; where several may be given, a group too.\
"""
FILES: Final = (
    ("~/.backprop", "the queue, logs and settings; BACKPROP_HOME moves it"),
    ("~/.backprop/config.json", "your settings"),
    ("backprop.config.json, .backprop.json", "a project's settings, in the current directory"),
)


def page() -> str:
    """Return the whole page in roff."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    context = click.Context(backprop, info_name="backprop")
    yield r".\" Made by: python -m tools.docs.man_page > tools/share/backprop.1"
    yield '.TH BACKPROP 1 "" "Backprop" "User Commands"'
    yield from (".SH NAME", rf"backprop \- {NAME}")
    yield from (".SH SYNOPSIS", r".B backprop", r"[OPTIONS] COMMAND ...")
    yield from (".SH DESCRIPTION", _text(DESCRIPTION))
    yield ".SH OPTIONS"
    yield from _options(backprop)
    yield ".SH COMMANDS"
    for name in backprop.list_commands(context):
        if (command := backprop.get_command(context, name)) is not None:
            yield from _command(name, command)
    yield from _table(".SH EXIT STATUS", [(str(code), said) for code, said in MEANINGS])
    yield from _table(".SH FILES", FILES)


def _command(name: str, command: click.Command) -> Iterator[str]:
    yield f".SS {_text(usage(name, command))}"
    for number, paragraph in enumerate((command.help or "").split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))
    yield from _options(command)
    if command.epilog:
        yield from (".PP", ".nf")
        lines = command.epilog.strip("\n").splitlines()
        yield from (_text(line) if line.strip() else "" for line in lines if line.strip() != "\b")
        yield ".fi"


def _options(command: click.Command) -> Iterator[str]:
    for one in listed(command):
        value = value_of(one)
        shown = ", ".join(rf"\fB{_text(name)}\fR" for name in (*one.opts, *one.secondary_opts))
        yield ".TP"
        yield shown + (rf" \fI{_text(value)}\fR" if value else "")
        yield _text(" ".join(f"{one.help or ''}{default(one)}".split()))


def _table(title: str, rows: "list[tuple[str, str]] | tuple[tuple[str, str], ...]") -> Iterator[str]:
    yield title
    for name, said in rows:
        yield from (".TP", rf"\fB{_text(name)}\fR", _text(said))


def _text(text: str) -> str:
    """Escape what roff would read as a request, an escape or a typographic hyphen."""
    shown = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown


if __name__ == "__main__":
    print_page("tools/share/backprop.1", page, "man_page")
