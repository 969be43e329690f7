"""Tells the user's own code from that of libraries, by the paths in a traceback."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from backprop.scheduler.faults.tracebacks import CodeLine
from backprop.scheduler.faults.triage import Place

_LIBRARY: Final = re.compile(
    r"/(?:site|dist)-packages/|/lib(?:64)?/python\d[\d.]*/|/lib/pypy|^<|/\.cache/|/torchinductor_"
    r"|\bimportlib[./]_bootstrap|\.p(?:yx|xi|xd)$"
)
_STARTER: Final = re.compile(r"/bin/[^/.]{1,80}$")
"""Programs that packages install: torchrun, accelerate."""


def is_own(file: str, cwd: str) -> bool:
    """Return whether a file is the user's, rather than a library's."""
    return _LIBRARY.search(file) is None and (_STARTER.search(file) is None or _within(file, cwd))


def last_own(frames: Iterable[CodeLine], cwd: str) -> Place | None:
    """Return the last frame of the user's own code: of that in the run's directory, where there is any."""
    own = [frame for frame in frames if is_own(frame.file, cwd)]
    if not own:
        return None
    frame = next((one for one in reversed(own) if _within(one.file, cwd)), own[-1])
    return Place(_short(frame.file, cwd), frame.line, frame.function)


def _within(file: str, cwd: str) -> bool:
    return not file.startswith("/") or file.startswith(f"{cwd.rstrip('/')}/")


def _short(file: str, cwd: str) -> str:
    path = PurePosixPath(file)
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else file
