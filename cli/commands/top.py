"""`backprop top`: a live screen of the GPUs, of what runs and of what is next. It changes nothing."""

from collections.abc import Sequence
from typing import Final

import click

from backprop.cli.context import NO_WORKER, open_existing

REFRESH_S: Final = 2.0


@click.command(name="top")
@click.option("--once", is_flag=True, help="Print one frame and exit.")
def command(once: bool) -> None:
    """Watch GPUs, running and next runs, until Ctrl-C. In a pipe: one frame."""
    from backprop.cli.render.watch import can_redraw

    show(live=can_redraw() and not once)


def show(*, live: bool) -> None:
    """Print one frame, or draw it again and again on the terminal until Ctrl-C."""
    from backprop.cli.render.live_screen import frame
    from backprop.cli.render.machine_view import overview
    from backprop.cli.render.watch import watch
    from backprop.worker.machine.reader import OneOffReader

    home, database = open_existing()
    reader = OneOffReader(home)

    def lines() -> Sequence[str]:
        return frame(overview(home, database, reader.read(), reader.settings), database, NO_WORKER)

    try:
        if live:
            watch(lines, REFRESH_S)
        else:
            click.echo("\n".join(lines()))
    finally:
        reader.close()
