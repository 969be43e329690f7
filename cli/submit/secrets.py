"""Gives a run that is queued again the credentials that were removed at its end: those of this shell, and says so."""

import os
from collections.abc import Sequence

import click

from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.scrubbing import scrubbed_names, taken_from


def restored_secrets(home: Home, run_id: str) -> dict[str, str]:
    """Return the variables that were removed from what is stored of a run, as this shell has them. Raises OSError."""
    return taken_from(scrubbed_names(home.run_folder(run_id)), os.environ)


def say_secrets(home: Home, run_ids: Sequence[str]) -> None:
    """Say which variables are taken from this shell, and which it lacks. Raises OSError."""
    names = {name for run_id in run_ids for name in scrubbed_names(home.run_folder(run_id))}
    taken, missing = sorted(names & os.environ.keys()), sorted(names - os.environ.keys())
    lines = (
        [f"{', '.join(taken)}: taken from this shell, since the stored values were removed"] if taken else []
    )
    lines += (
        [
            f"{', '.join(missing)}: not set in this shell, and the stored values were removed; if the script needs"
            " them, set them and resume it again"
        ]
        if missing
        else []
    )
    for line in lines:
        answers.current().note(line)
        click.echo(f"note: {safe(line)}", err=True)
