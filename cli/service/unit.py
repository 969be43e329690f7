"""Writes the systemd unit of a worker as text, for `backprop service`. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

NAME: Final = "backprop.service"
MARK: Final = "# Written by `backprop service install`. Changes here are lost at the next install.\n"
"""The first line of a unit of ours. One without it is its user's, and stays as it is."""
TEXT: Final = (
    MARK
    + """\
[Unit]
Description=Backprop worker

[Service]
ExecStart={command}
{environment}Restart=always
RestartSec=10
# Only the worker is signalled and waited for. Its segments share the control group and must outlive it.
KillMode=process
# A training that the kernel ends for lack of memory is no reason to stop the worker.
OOMPolicy=continue
# Longer than the longest --grace-seconds.
TimeoutStopSec=120
# Six descriptors per live segment, and whatever the scripts open: they inherit the limit.
LimitNOFILE=65536:524288

[Install]
WantedBy=default.target
"""
)


def unit_text(program: Path, words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the unit. `program`: the installed command. `words`: options of `backprop worker`. `environment`:
    variables that the worker needs."""
    command = " ".join(_quoted(word.replace("$", "$$")) for word in (str(program), "worker", *words))
    lines = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environment.items())
    return TEXT.format(command=command, environment=lines)


def _quoted(word: str) -> str:
    """Quote a word where systemd would split it. A `%` would name something. (systemd.service(5), COMMAND LINES)"""
    word = word.replace("%", "%%")
    if word and not set(word) & set(" \t\"'\\;"):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
