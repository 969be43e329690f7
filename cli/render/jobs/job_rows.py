"""Prints which jobs of a cluster the segments of a run were."""

import shlex
from collections.abc import Sequence

import click

from backprop.cli.render.tables import print_table
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord, SegmentRecord


def print_jobs(home: Home, run: RunRecord, segments: Sequence[SegmentRecord]) -> None:
    """Print a line for each segment that was a job, and what the last one was handed over with."""
    jobs = [one for one in segments if one.cluster is not None]
    if not jobs:
        return
    from backprop.worker.executor.cluster import segment_state

    click.echo()
    rows = [
        (str(one.number), one.cluster or "-", one.job or "-", one.node or "-", one.engine_words or "-")
        for one in jobs
    ]
    print_table(("SEGMENT", "CLUSTER", "JOB", "NODE", "SAID"), rows, ("SEGMENT", "JOB"))
    folder = home.segment_folder(run.id, jobs[-1].number)
    note = segment_state.read_job(folder)
    if note is not None:
        click.echo(f"handed over by: {safe(shlex.join(note.words))}")
    line = segment_state.last_line(folder)
    if line is not None:
        click.echo(f"the job printed: {safe(line)}")
