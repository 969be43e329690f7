"""`backprop top`: a live screen of the GPUs, of what runs and of what is next; with textual installed, with keys."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import NO_WORKER, open_existing

if TYPE_CHECKING:
    from backprop.cli.live.keys.desk import Verbs

REFRESH_S: Final = 2.0
LAST_REQUESTS_S: Final = 5.0
TEXTUAL: Final = 8
"""The major version of textual that the keys are written for."""
HINT: Final = "pip install 'backprop-scheduler[tui]' gives keys"


@click.command(name="top")
@click.option("--once", is_flag=True, help="Print one frame and exit.")
@click.option("--plain", is_flag=True, help="No keys: show what there is until Ctrl-C, and change nothing.")
def command(once: bool, plain: bool) -> int:
    """Watch GPUs, running and next runs. In a pipe: one frame.

    With `pip install 'backprop-scheduler[tui]'` it has keys: choose a run, see its output, suspend, stop or move it.
    """
    from backprop.cli.live.watch import can_redraw

    return show(live=can_redraw() and not once, plain=plain)


def show(*, live: bool, plain: bool = False) -> int:
    """Print one frame, or show a live screen until its user quits; return the exit code. `plain`: without keys."""
    from backprop.cli.live.live_screen import frame
    from backprop.cli.live.watch import watch
    from backprop.cli.render.json_views import is_terminal
    from backprop.cli.render.machine_view import overview
    from backprop.worker.machine.reader import OneOffReader

    # textual reads from the one and writes to the other.
    may_have_keys = live and not plain and is_terminal(sys.stdin) and is_terminal(sys.stderr)
    if may_have_keys and _has_textual():
        return _show_with_keys()
    hint = HINT if may_have_keys else None
    home, database = open_existing()
    reader = OneOffReader(home)

    def lines() -> Sequence[str]:
        return frame(overview(home, database, reader.read(), reader.settings), database, NO_WORKER, hint)

    try:
        if live:
            watch(lines, REFRESH_S)
        else:
            click.echo("\n".join(lines()))
    finally:
        reader.close()
    return 0


def _has_textual() -> bool:
    from importlib import metadata

    try:
        return metadata.version("textual").split(".")[0] == str(TEXTUAL)
    except metadata.PackageNotFoundError:
        return False


def verbs() -> "Verbs":
    """Return what keys do to a run: what the commands of these names do."""
    from backprop.cli.commands import move, stop, suspend, unsuspend, why
    from backprop.cli.live.keys.desk import Verbs

    return Verbs(
        stop=stop.one_run,
        suspend=suspend.one_run,
        unsuspend=unsuspend.one_run,
        first=move.one_to_the_front,
        why=lambda home, database, run: why.lines(home, database, run, whole=True),
        became=suspend.what_became,
    )


def _show_with_keys() -> int:
    from backprop.cli.live.keys.app import KeysApp, run_with_keys
    from backprop.cli.live.keys.desk import Desk
    from backprop.cli.live.watch import takes_colours
    from backprop.cli.render.glyphs import glyphs_of
    from backprop.scheduler.home import layout

    home = layout.locate()
    desk = Desk(home, verbs())
    glyphs, colour = glyphs_of(sys.stdout.encoding), takes_colours()
    code, said = run_with_keys(lambda: KeysApp(home, desk, glyphs, colour, REFRESH_S), LAST_REQUESTS_S)
    for line in said:
        click.echo(line)
    return code
