"""Remembers which port a run found taken, tells whether that is free, and offers runs a port of their own.

Scripts of distributed training listen on a fixed port, 29500 or 12355 as a rule. Of two at once the second one fails.
So a run gets a free `MASTER_PORT`, and one that found its port taken is started again once that is free. `ports.json`
in the run's folder says which port that is; where the script named none, it says which runs were live then.
"""

import contextlib
import errno
import random
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced

NOTE: Final = "ports.json"
OFFERED: Final = range(20_000, 29_000)
"""Below the ports that the kernel gives to outgoing connections, so that none is taken before the script listens."""
MOST_TRIES: Final = 50
VARIABLES: Final = ("MASTER_PORT", "PET_MASTER_PORT")
"""Of PyTorch, and of torchrun, which takes 29500 without it."""


class PortNote(msgspec.Struct, frozen=True, kw_only=True):
    """`port`: None where the script named none. `segment`: the one that failed. `beside`: run and segment of those that
    were live then. `noted_s`: Unix seconds."""

    port: int | None
    segment: int
    beside: tuple[tuple[str, int], ...] = ()
    noted_s: float = 0.0


def write_note(folder: Path, note: PortNote) -> None:
    """Note a taken port in a run's folder. Raises nothing: without the note the run is only tried again sooner."""
    draft = folder / f"{NOTE}.tmp"
    with contextlib.suppress(OSError):
        write_synced(draft, (msgspec.json.encode(note),), synced=False)
        draft.replace(folder / NOTE)


def read_note(folder: Path) -> PortNote | None:
    """Return what was noted in a run's folder, if anything. Raises nothing."""
    try:
        content = read_if_there(folder / NOTE)
        return msgspec.json.decode(content, type=PortNote) if content is not None else None
    except (OSError, msgspec.DecodeError):
        return None


def is_taken(port: int) -> bool:
    """Return whether a program listens on a port. Where that cannot be told, it does not."""
    for family in (socket.AF_INET6, socket.AF_INET):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as tried:
            # As servers do: what is left of closed connections takes no port.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                tried.bind(("", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False


def offer(shell: Mapping[str, str], offered: Collection[str]) -> dict[str, str]:
    """Return the variables that give a run a free port; none where the shell that queued it has one of them. `shell`:
    its environment. `offered`: the ports that live runs were given."""
    if any(name in shell for name in VARIABLES):
        return {}
    candidates = random.sample(OFFERED, MOST_TRIES)
    free = (str(port) for port in candidates if str(port) not in offered and not is_taken(port))
    port = next(free, None)
    return {} if port is None else dict.fromkeys(VARIABLES, port)
