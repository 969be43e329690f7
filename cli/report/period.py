"""Reads which time a report is of, and remembers when the last one was made."""

import contextlib
import time
from typing import Final

import click

from backprop.cli.options.times import read_since
from backprop.scheduler.home.layout import Home

LAST: Final = "last"
DEFAULT: Final = "10h"


def begin_s(home: Home, text: str, now_s: float) -> float:
    """Return the Unix time that `--since` names: "last", or what `list --since` takes. Raises click.BadParameter."""
    if text.strip().lower() == LAST:
        before_s = _last_s(home)
        text = DEFAULT if before_s is None or before_s > now_s else f"{now_s - before_s:.3f}s"
    try:
        since_s = read_since(text, now_s)
        time.localtime(since_s)
    except click.BadParameter as error:
        raise click.BadParameter(f"{error.message}, or last", param_hint="--since") from None
    except (OverflowError, ValueError, OSError):
        raise click.BadParameter(
            f"{text} is further away than the calendar goes", param_hint="--since"
        ) from None
    if since_s >= now_s:
        raise click.BadParameter(
            f"{text} is still to come; a report is of what has passed", param_hint="--since"
        )
    return since_s


def remember(home: Home, now_s: float) -> None:
    """Note that a report was made now. Where that can't be written, the next `--since last` goes back further."""
    with contextlib.suppress(OSError):
        draft = home.last_report.with_suffix(".part")
        draft.write_text(f"{now_s:.3f}\n")
        draft.replace(home.last_report)


def _last_s(home: Home) -> float | None:
    try:
        return float(home.last_report.read_text()[:40])
    except (OSError, ValueError):
        return None
