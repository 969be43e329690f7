"""Finds the Python exceptions at the end of a log, each with its frames and with what it was raised from.

Read are the interpreter's own tracebacks, those of rich, exception groups, and faulthandler's; with what launchers put
before each line ("[rank0]: ", "[default0]:"), and with what those of several processes hold.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

MESSAGE_LINES: Final = 12
"""Of an exception, that are looked at."""
FRAME_LINES: Final = 2500
"""Of a traceback, that are looked at."""
LONGEST_PATH: Final = 1500
_HEADER: Final = re.compile(
    r"(?P<prefix>.{0,1000}?)(?:Original |\+ Exception Group )?Traceback \(most recent call last\):"
)
_RICH_HEADER: Final = re.compile(r"(?P<prefix>.{0,200}?)╭─+ ?Traceback \(most recent call last\)")
_PREFIX: Final = re.compile(
    r"(?:\[?(?:rank|default|worker) ?\d{1,4}\]?: ?|\d{1,4}: |\(\w{1,40} pid=\d{1,9}[^)]{0,60}\) )?(?:[ |+]*\| |[ +]*)"
)
_FRAME: Final = re.compile(
    r'\s{1,4}File "(?P<file>[^"]{1,1500})", line (?P<line>\d{1,9})(?:, in (?P<function>.{1,200}))?$'
)
_FATAL_FRAME: Final = re.compile(
    r'\s{1,4}File "(?P<file>[^"]{1,1500})", line (?P<line>\d{1,9}) in (?P<function>.{1,200})$'
)
_RICH_FRAME: Final = re.compile(r"(?P<file>/?\S.{0,1000}?):(?P<line>\d{1,9}) in (?P<function>\S{1,200})$")
_EXCEPTION: Final = re.compile(r"(?P<name>[A-Za-z_](?:[\w.]|<locals>){0,200})(?::(?: (?P<text>.*))?)?$")
_UNTITLED: Final = re.compile(r"(?:SyntaxError|IndentationError|TabError)\b")
_FATAL: Final = re.compile(r"(?P<prefix>.{0,200}?)Fatal Python error: (?P<text>.*)$")
CAUSED: Final = "The above exception was the direct cause of the following exception:"
MEANWHILE: Final = "During handling of the above exception, another exception occurred:"


class CodeLine(msgspec.Struct, frozen=True):
    """A line of code in a traceback."""

    file: str
    line: int
    function: str


class Raised(msgspec.Struct, frozen=True):
    """An exception. `name`: its class, with its module where that was printed. `text`: its message, of several lines.
    `frames`: outermost first. `at`, `end`: the lines of its header and after its message. `prefix`: before each line of
    it. `cause`: what it was raised from; `context`: it was raised while another one was handled."""

    name: str
    text: str
    frames: tuple[CodeLine, ...]
    at: int
    end: int
    prefix: str = ""
    cause: "Raised | None" = None
    context: bool = False

    @property
    def message(self) -> str:
        """Its class and the first line of its message; the next one too where that ends in a colon."""
        first, _, rest = self.text.partition("\n")
        if first.endswith(":") and rest:
            first = f"{first} {rest.partition(chr(10))[0].strip()}"
        return f"{self.name}: {first}" if first else self.name

    @property
    def chain(self) -> "Iterator[Raised]":
        """Itself, and what it was raised from."""
        raised: Raised | None = self
        while raised is not None:
            yield raised
            raised = raised.cause


def find(lines: Sequence[str]) -> list[Raised]:
    """Return the exceptions, in the order of their messages."""
    found: list[Raised] = []
    at = 0
    while at < len(lines):
        raised = _at(lines, at)
        if raised is None:
            at += 1
            continue
        found.append(_linked(lines, raised, found))
        at = max(raised.end, at + 1)
    return found


def _at(lines: Sequence[str], at: int) -> Raised | None:
    """Return the exception whose report begins at a line."""
    line = lines[at]
    if "Traceback (most" in line:
        rich = _RICH_HEADER.match(line)
        if rich is not None:
            return _rich(lines, at)
        header = _HEADER.match(line)
        if header is not None:
            return _plain(lines, at, _prefix(lines, at, header["prefix"]))
    if "Fatal Python error: " in line:
        fatal = _FATAL.match(line)
        return _fatal(lines, at, fatal["text"]) if fatal is not None else None
    if 'File "' in line and at + 1 < len(lines):
        prefix = _PREFIX.match(line)
        return _untitled(lines, at, "" if prefix is None else prefix[0].rstrip(" "))
    return None


def _prefix(lines: Sequence[str], at: int, before: str) -> str:
    """Return what stands before each line of a traceback: a progress bar before the header alone does not."""
    prefix = before.replace("+", "|")
    if at + 1 < len(lines) and prefix and lines[at + 1].startswith(prefix):
        return prefix
    return ""


def _plain(lines: Sequence[str], at: int, prefix: str) -> Raised | None:
    frames: list[CodeLine] = []
    for number in range(at + 1, min(at + FRAME_LINES, len(lines))):
        if not lines[number].startswith(prefix):
            if prefix.strip():
                continue  # of another process
            return None
        line = lines[number][len(prefix) :]
        frame = _FRAME.match(line)
        if frame is not None:
            frames.append(CodeLine(frame["file"], int(frame["line"]), frame["function"] or ""))
        elif line[:1].strip() and not line.startswith(("+-", "| ")):
            return _message(lines, at, number, prefix, frames)
    return None


def _message(
    lines: Sequence[str], at: int, first: int, prefix: str, frames: Sequence[CodeLine]
) -> Raised | None:
    """Return the exception whose message begins at line `first`."""
    line = lines[first][len(prefix) :].strip()
    match = _EXCEPTION.match(line)
    if match is None:
        return None
    texts, end = [match["text"] or ""], first + 1
    while end < len(lines) and len(texts) < MESSAGE_LINES:
        line = lines[end]
        if not line.startswith(prefix) or _begins_another(line[len(prefix) :]):
            break
        texts.append(line[len(prefix) :].strip())
        end += 1
    return Raised(match["name"], "\n".join(texts), tuple(frames), at, end, prefix)


def _begins_another(line: str) -> bool:
    text = line.strip()
    return (
        "Traceback (most recent" in text
        or text in (CAUSED, MEANWHILE)
        or text.startswith(("+-", "╭─", "wandb:", "-- Process "))
    )


def _rich(lines: Sequence[str], at: int) -> Raised | None:
    """Read a panel of rich, whose long paths go on in the next line, and whose messages are cut at its width."""
    frames: list[CodeLine] = []
    before = ""
    for number in range(at + 1, len(lines)):
        line = lines[number].strip()
        if line.startswith("╰"):
            return _rich_message(lines, at, number, frames)
        if not line.startswith("│"):
            return None
        inner = line.strip("│").strip()
        if line.startswith(("│ │", "│ ╭", "│ ╰")) or inner.startswith(("❱", "│")):
            before = ""
            continue
        frame = _RICH_FRAME.match(inner) or _RICH_FRAME.match(before + inner)
        before = "" if frame is not None or " " in inner else (before + inner)[:LONGEST_PATH]
        if frame is not None:
            frames.append(CodeLine(frame["file"], int(frame["line"]), frame["function"]))
    return None


def _rich_message(lines: Sequence[str], at: int, bottom: int, frames: Sequence[CodeLine]) -> Raised | None:
    width = len(lines[bottom])
    if bottom + 1 < len(lines) and lines[bottom + 1].startswith("╭"):
        # A panel of its own shows the line that cannot be compiled.
        for number in range(bottom + 2, min(bottom + FRAME_LINES, len(lines))):
            if lines[number].startswith("╰"):
                bottom = number
                break
    raised = _message(lines, at, bottom + 1, "", frames) if bottom + 1 < len(lines) else None
    if raised is None:
        return None
    text, last = "", f"{raised.name}: "
    for number, part in enumerate(raised.text.split("\n")):
        # A line that another word would not have fitted into goes on in the next one.
        goes_on = number > 0 and len(last) > width * 3 // 4
        text += f" {part}" if goes_on else f"\n{part}" if number else part
        last = part if number else last + part
    return Raised(raised.name, text, raised.frames, at, raised.end)


def _fatal(lines: Sequence[str], at: int, text: str) -> Raised:
    """Read what faulthandler prints: frames innermost first."""
    frames: list[CodeLine] = []
    end = at + 1
    for number in range(at + 1, min(at + 200, len(lines))):
        frame = _FATAL_FRAME.search(lines[number])
        if frame is None and frames:
            break
        if frame is not None:
            frames.append(CodeLine(frame["file"], int(frame["line"]), frame["function"]))
            end = number + 1
    return Raised("Fatal Python error", text, tuple(reversed(frames)), at, end)


def _untitled(lines: Sequence[str], at: int, prefix: str) -> Raised | None:
    """Read the report of a script that Python cannot compile: it has no header."""
    line = lines[at].removeprefix(prefix)
    frame = _FRAME.match(line)
    if frame is None or frame["function"] is not None:
        return None
    for number in range(at + 1, min(at + 6, len(lines))):
        text = lines[number].removeprefix(prefix)
        if _UNTITLED.match(text):
            found = CodeLine(frame["file"], int(frame["line"]), "")
            return _message(lines, at, number, prefix, [found])
    return None


def _linked(lines: Sequence[str], raised: Raised, before: Sequence[Raised]) -> Raised:
    """Return it with what it was raised from, which the line above its header tells."""
    earlier = next((one for one in reversed(before) if one.prefix == raised.prefix), None)
    if earlier is None or raised.at == 0:
        return raised
    above = lines[raised.at - 1].removeprefix(raised.prefix).strip(" |")
    cause = earlier if above == CAUSED else None
    return Raised(
        raised.name,
        raised.text,
        raised.frames,
        raised.at,
        raised.end,
        raised.prefix,
        cause,
        above == MEANWHILE,
    )
