"""Prints in what two runs differ, for people: a heading per section, one value per line where it fits 80 columns."""

import os
import sys
from typing import Final

import click

from backprop.cli.render.differences import note_view
from backprop.cli.render.differences.two_runs import Difference, FileDifference, TwoRuns
from backprop.cli.render.json_views import is_terminal
from backprop.cli.render.terminal_text import safe
from backprop.worker.environment.provenance.notes import Noted

WIDTH: Final = 80
MOST_LINES: Final = 200
"""Of one file's difference."""
MARKS: Final = {"changed": "~", "only in A": "-", "only in B": "+"}
COLOURS: Final = {"+": "green", "-": "red", "@": "cyan", "~": "yellow"}


def print_differences(found: TwoRuns) -> None:
    """Print all that differs, and at the end what is the same."""
    for name, run in (("A", found.a), ("B", found.b)):
        click.echo(f"{name}  {run.id}  {safe(run.name)}, {run.state}")
    same: list[str] = []
    _print_code(found, same)
    for section, differences in found.sections.items():
        if section in found.unknown:
            _head(section)
            click.echo(f"  not compared: {safe(found.unknown[section])}")
        elif not differences:
            same.append(section)
        else:
            _head(section)
            for one in differences:
                _print_difference(one)
    if same:
        click.echo(f"\nthe same: {', '.join(same)}")


def _print_code(found: TwoRuns, same: list[str]) -> None:
    code = found.code
    if code is not None and not code.files and not code.unknown:
        same.append("code")
        return
    _head("code")
    for name, noted in zip("AB", found.notes, strict=True):
        click.echo(f"  {name}  {safe(_side(noted))}")
    for one in found.files:
        _coloured(MARKS[one.file.kind], f"  {one.file.kind:<9}  {safe(one.file.name)}{_why_not(one)}")
    for line in code.unknown if code is not None else ("a run without a note",):
        click.echo(f"  not compared: {safe(line)}")
    for one in found.files:
        if one.patch is not None:
            click.echo()
            _print_patch(one.patch)


def _side(noted: Noted | None) -> str:
    if noted is None:
        return "not noted: it was queued by an older version, or its note is not written yet"
    return note_view.code_words(noted)


def _why_not(one: FileDifference) -> str:
    return f"  (not shown: {safe(one.unknown)})" if one.unknown is not None else ""


def _print_patch(patch: bytes) -> None:
    lines = patch.decode(errors="replace").rstrip("\n").split("\n")
    for line in lines[:MOST_LINES]:
        _coloured(line[:1], safe(line.expandtabs()))
    if len(lines) > MOST_LINES:
        click.echo(f"… and {len(lines) - MOST_LINES} more lines; see --json")


def _print_difference(one: Difference) -> None:
    a, b = (safe(value) if value is not None else "-" for value in (one.a, one.b))
    line = f"  {safe(one.name)}  {a} → {b}"
    if len(line) <= WIDTH:
        click.echo(line)
        return
    click.echo(f"  {safe(one.name)}")
    click.echo(f"    A  {a}")
    click.echo(f"    B  {b}")


def _head(title: str) -> None:
    click.echo()
    _coloured("@", title)


def _coloured(mark: str, line: str) -> None:
    colour = COLOURS.get(mark)
    wanted = colour is not None and is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    click.echo(click.style(line, fg=colour) if wanted else line)
