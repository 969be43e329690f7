"""Folds the lines of JSON in which a script reports its progress into one line of a terminal that is drawn in place."""

from typing import BinaryIO, Final

from backprop.cli.render.terminal_text import safe
from backprop.worker.segments.events import CheckpointEvent, ProgressEvent, parse

CLEAR: Final = b"\r\x1b[K"
LINE_BYTES: Final = 1 << 16
"""A longer line is no event, and is passed on before its end."""


class FoldedEvents:
    """Writes to `out`, a terminal: events change one line at the bottom, all other lines scroll above it.

    The line says the last step, loss, metrics and checkpoint. It is not drawn while another line is unfinished.
    `columns`: the most that it may take.
    """

    def __init__(self, out: BinaryIO, columns: int) -> None:
        self._out = out
        self._columns = columns
        self._rest = b""
        self._values: dict[str, str] = {}
        self._drawn = False
        self._open = False

    def isatty(self) -> bool:
        """Return whether colours and text alone go to `out`."""
        return self._out.isatty()

    def write(self, data: bytes) -> None:
        """Take a part of the output. Raises OSError."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._open:
                self._pass_on(line + b"\n")
            else:
                self._line(line)
            self._open = False
        # A progress bar or a question has no end of line for a long time.
        if self._rest and (self._open or not self._rest.startswith(b"{") or len(self._rest) > LINE_BYTES):
            self._pass_on(self._rest)
            self._rest, self._open = b"", True
        if not self._open:
            self._draw()

    def flush(self) -> None:
        """Raises OSError."""
        self._out.flush()

    def end(self) -> None:
        """Write what is unfinished, and leave the line as it is. Raises OSError."""
        if self._rest:
            self._pass_on(self._rest + b"\n")
            self._rest = b""
        if not self._open:
            self._draw()
        if self._drawn:
            self._out.write(b"\n")
            self._drawn = False
        self._out.flush()

    def _line(self, line: bytes) -> None:
        match parse(line):
            case CheckpointEvent(step=step, path=path):
                self._values["saved"] = f"saved {path if step is None else f'at step {step:,}'}"
            case ProgressEvent(step=step, loss=loss, metrics=metrics) if b'"' in line:
                # A number that is not told again would soon be another step's.
                saved = self._values.get("saved")
                self._values = {} if saved is None else {"saved": saved}
                self._values |= {} if step is None else {"step": f"step {step:,}"}
                self._values |= {} if loss is None else {"loss": f"loss {loss:.4g}"}
                self._values |= {name: f"{name} {value:.4g}" for name, value in metrics.items()}
            case _:
                self._pass_on(line + b"\n")

    def _pass_on(self, data: bytes) -> None:
        self._out.write((CLEAR if self._drawn else b"") + data)
        self._drawn = False

    def _draw(self) -> None:
        if not self._values:
            return
        told = [value for name, value in self._values.items() if name != "saved"]
        words = "  ".join([*told, *([self._values["saved"]] if "saved" in self._values else [])])
        self._out.write(CLEAR + safe(f"  {words}", max(self._columns - 1, 1)).encode())
        self._drawn = True
