"""Tells from the end of its log whether a failed segment ran out of GPU memory.

Scripts catch "CUDA out of memory", print it, go on with a smaller batch, and may fail hours later of something else. So
the words count only where the program's end is reported: in the exception that ended it (of any rank) or in its direct
cause, else in what a native program or a crash prints last, after any traceback. "During handling of the above
exception" makes nothing count: a script that tries again inside `except` has that above whatever goes wrong later.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from backprop.scheduler.faults.words import GPU_MEMORY, NO_GPU_MEMORY
from backprop.worker.segments.tail import LAST_BYTES, NO_LOG, Tail

NATIVE_LINES = 20
"""How near the end a native program's last words must be, stack frames not counted."""
TRACEBACK_LINES = 80
"""How near the end an exception must be, to be the end: a summary (wandb) or the launcher's report may follow. A rank's
own ("[rank0]: ") is printed by its dying interpreter and counts wherever it is."""
MAX_CHARACTERS = 500


class Trouble(msgspec.Struct, frozen=True):
    """Words that report one kind of trouble. `otherwise`: makes a line with them mean something else. `native`:
    beginnings of lines with them that programs print for themselves. `within`: how near the end those must be."""

    words: re.Pattern[str]
    otherwise: re.Pattern[str] | None = None
    native: re.Pattern[str] | None = None
    within: int = NATIVE_LINES

    def is_in(self, line: str) -> bool:
        if self.otherwise is not None and self.otherwise.search(line) is not None:
            return False
        return self.words.search(line) is not None


_DEVICE = Trouble(GPU_MEMORY, NO_GPU_MEMORY)
_HEADER = re.compile(r"(?P<prefix>.*?)(?:Exception Group )?Traceback \(most recent call last\):")
_RANK = re.compile(r"\[rank\d+\]: $")
_CAUSED = "The above exception was the direct cause of the following exception:"
# Raised because the training process has failed, by what started it: torchrun, `accelerate launch`, a wrapper script.
_LAUNCHER = re.compile(r"(?:[\w.]+\.)?(?:ChildFailedError|CalledProcessError)\b")
# Exceptions that say what happened only further down their message.
_LONG = re.compile(r"Graph execution error|root error\(s\)|ResourceExhaustedError|NCCL error")
_LONG_LINES = 60
# Beginnings of lines that programs print for themselves, not scripts for their users.
_NATIVE = re.compile(
    r"\s*what\(\):|terminate called after"
    r"|(?:[\w.]+\.)?\w*(?:Error|Exception): "  # rich prints a traceback under a header of its own
    r"|[\W\d]*(?:[EF] )?(?:CUDA (?:runtime )?error|Cuda failure|cuda failed|HIP error|GPUassert|cudaMalloc)\b"
    r"|.*\.(?:cc|cpp|cu|h):\d+\] "
    r"|(?:[\w./-]+: )+Cannot allocate memory$",  # a shell
    re.IGNORECASE,
)
# What `print(error); sys.exit(1)` leaves as the very last line.
_LAST_WORDS = re.compile(r"(?:CUDA|HIP) out of memory\. Tried to allocate|CUDA error: out of memory")
_FRAME = re.compile(
    r"frame #\d+: |<omitting python frames>|Exception raised from |\s+File \"|\*\*\* |Aborted"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def out_of_memory(log: Path) -> str | None:
    """Return the line that says the GPU's memory ran out and ended the program; None if the log does not say so.

    `log`: of a segment that failed by itself. At most 500 characters, colours removed. Raises OSError when it
    cannot be read now.
    """
    return reported(log, _DEVICE)


def reported(log: Path, trouble: Trouble) -> str | None:
    """Return the line that says that `trouble` ended the program, as `out_of_memory` does."""
    return _found(_end_of(log), trouble)


class _Raised(msgspec.Struct, frozen=True):
    """A traceback: `header` and `at` are the lines of its header and of its exception."""

    prefix: str
    header: int
    at: int
    is_launcher: bool


def _found(lines: Sequence[str], trouble: Trouble) -> str | None:
    raised = list(_tracebacks(lines))
    for prefix in dict.fromkeys(exception.prefix for exception in raised):
        for message in _messages(lines, [exception for exception in raised if exception.prefix == prefix]):
            if trouble.is_in(message):
                return message.strip()[:MAX_CHARACTERS]
    return _native(lines, raised, trouble)


def _tracebacks(lines: Sequence[str]) -> Iterator[_Raised]:
    """`prefix` is what torchrun ("[rank0]: ") or an exception group ("  | ") puts before each line."""
    for header, line in enumerate(lines):
        match = _HEADER.fullmatch(line)
        if match is None:
            continue
        prefix = match["prefix"].replace("+", "|")
        for at in range(header + 1, len(lines)):
            text = lines[at].removeprefix(prefix)
            if lines[at].startswith(prefix) and text[:1].strip() and not text.startswith(("+-", "| ")):
                yield _Raised(prefix, header, at, _LAUNCHER.match(text) is not None)
                break


def _messages(lines: Sequence[str], raised: Sequence[_Raised]) -> Iterator[str]:
    """The message of the last exception that is not a launcher's, and of those it was raised from. `raised`: of one
    prefix."""
    own = [exception for exception in raised if not exception.is_launcher]
    if not own or (not _RANK.search(own[-1].prefix) and len(lines) - own[-1].at > TRACEBACK_LINES):
        return
    while own:
        last = own.pop()
        yield lines[last.at]
        if _LONG.search(lines[last.at]):
            following = (exception.header for exception in raised if exception.header > last.at)
            yield from lines[last.at + 1 : min(last.at + _LONG_LINES, next(following, len(lines)))]
        if _line_above(lines, last) != _CAUSED:
            return


def _line_above(lines: Sequence[str], raised: _Raised) -> str:
    for line in reversed(lines[: raised.header]):
        text = line.removeprefix(raised.prefix).strip()
        if text and text != raised.prefix.strip():
            return text
    return ""


def _native(lines: Sequence[str], raised: Sequence[_Raised], trouble: Trouble) -> str | None:
    """A program's last words: after the last exception, before a launcher reports that it has failed."""
    start = max((exception.at + 1 for exception in raised if not exception.is_launcher), default=0)
    reports = (
        exception.header for exception in raised if exception.is_launcher and exception.header >= start
    )
    end = min(reports, default=len(lines))
    last = [line for line in lines[start:end] if not _FRAME.match(line)][-trouble.within :]
    if last and _LAST_WORDS.match(last[-1]) and trouble.is_in(last[-1]):
        return last[-1].strip()[:MAX_CHARACTERS]
    native = (_NATIVE,) if trouble.native is None else (_NATIVE, trouble.native)
    matches = (
        line
        for line in reversed(last)
        if any(begins.match(line) for begins in native) and trouble.is_in(line)
    )
    return next((line.strip()[:MAX_CHARACTERS] for line in matches), None)


def _end_of(log: Path) -> list[str]:
    """The lines that are not blank in the last 64 KiB, but for a first one that was cut. A carriage return ends one."""
    try:
        start = max(0, log.stat().st_size - LAST_BYTES)
        with Tail(log, start) as tail:
            data = b"\n".join((*tail.read(LAST_BYTES), tail.rest()))
    except OSError as error:
        if error.errno in NO_LOG:
            return []
        raise
    text = _COLOUR.sub("", data.decode(errors="replace"))
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[1:] if start else lines
