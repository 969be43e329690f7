"""`backprop logs RUN`: what the script printed."""

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.session import need_existing

if TYPE_CHECKING:
    from backprop.cli.stream import LogStream
    from backprop.scheduler.database import Database

POLL_S: Final = 0.3


@click.command(name="logs")
@click.argument("run")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on as it grows, through every segment, until the run has ended."
)
@click.option("--segment", type=click.IntRange(min=1), metavar="N", help="Segment N alone.  [default: all]")
@click.option(
    "--raw", is_flag=True, help="Every byte as it is; a terminal gets text and colours only otherwise."
)
def command(run: str, follow: bool, segment: int | None, raw: bool) -> int:
    """Print RUN's output: all its segments, or one."""
    from backprop.cli.stream import LogStream
    from backprop.scheduler import reads
    from backprop.scheduler.errors import UnknownRun

    home, database = need_existing()
    found = reads.find_run(database, run)
    if segment is not None and segment > found.segment:
        raise UnknownRun(f"run {found.id} has {found.segment} segments, no segment {segment}")
    if not found.segment and not follow:
        click.echo(f"run {found.id} has not started yet ({found.reason})", err=True)
        return 0
    marks = segment is None and found.segment != 1
    stream = LogStream(home, found.id, segment or 1, sys.stdout.buffer, raw=raw, marks=marks or follow)
    if follow:
        return _follow(database, found.id, stream, segment)
    stream.finish(segment)
    return 0


def _follow(database: "Database", run_id: str, stream: "LogStream", segment: int | None) -> int:
    from backprop.cli.follow import has_ended, run_now
    from backprop.scheduler import reads

    try:
        while not has_ended(run_now(database, run_id)):
            stream.pump(segment)
            if segment is not None:
                one = reads.segment(database, run_id, segment)
                if one is not None and one.outcome is not None:
                    break
            time.sleep(POLL_S)
        stream.finish(segment)
    except KeyboardInterrupt:
        return 130
    return 0
