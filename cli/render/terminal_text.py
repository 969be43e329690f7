"""Makes text from outside harmless for a terminal.

A run's name, a path or a log line may hold escape sequences that retitle the window, write the clipboard, move the
cursor over earlier output, or reverse the reading direction; rich passes them all through. All text from outside goes
through `safe` first (and into rich as a `Text`, or through `rich.markup.escape`). A log that is streamed to a terminal
goes through `Colours`, which passes text and colours only.
"""

import codecs
import re
import shlex
from pathlib import Path

from backprop.scheduler.spec import RunSpec

ELLIPSIS = "…"

# ECMA-48: ESC [, parameters, intermediates, one final byte. Bounded: a log can hold anything after an ESC [.
_CSI = r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
_SGR = r"\x1b\[[0-9;:]*m"
_SPECIAL = _CSI + r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|[^\x00-\x9f]+"
_UNFINISHED = r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8})?\Z"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str, width: int | None = None) -> str:
    """Return `text` on one line, with every control, format, unassigned, surrogate or private character escaped.

    `width`: the most terminal columns it may take; a cut text ends in an ellipsis. Wide characters take two columns.
    Combining marks count as one although they take none, so that a text full of them cannot grow without end.
    """
    if width is None:
        return "".join(map(_visible, text))
    pieces: list[str] = []
    columns = 0
    for char in text:
        for piece in _visible(char):
            pieces.append(piece)
            columns += _columns(piece)
            if columns > width:  # at once: a text of any length costs no more than `width`
                return _cut(pieces, columns, width)
    return "".join(pieces)


def padded(text: str, width: int) -> str:
    """Return `text` made `safe`, cut or filled to `width` terminal columns."""
    shown = safe(text, width)
    return shown + " " * (width - sum(map(_columns, shown)))


class Colours:
    """Filters a stream of bytes: passes UTF-8 text, newline, tab, return and colours (SGR).

    Other control sequences (cursor, erase, modes) are dropped, because progress bars are full of them. Any other
    escape, control or format character is escaped, so that it has no effect. Bytes that are not UTF-8 are replaced.
    The stream may be cut anywhere: a sequence or character cut in two is held back until its end arrives.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        """Return the next part of the stream, filtered."""
        text = self._held + self._decode(data)
        cut = re.search(_UNFINISHED, text)
        end = cut.start() if cut else len(text)
        self._held = text[end:]
        return self._filter(text[:end])

    def close(self) -> bytes:
        """Return what was held back, escaped, and a reset if a colour was left on."""
        text = self._held + self._decode(b"", True)
        self._held = ""
        return self._filter(text) + (b"\x1b[0m" if self._coloured else b"")

    def _filter(self, text: str) -> bytes:
        return re.sub(_SPECIAL, self._replace, text).encode(errors="replace")

    def _replace(self, match: re.Match[str]) -> str:
        special = match[0]
        if special.startswith("\x1b["):
            if not re.fullmatch(_SGR, special):
                return ""
            self._coloured = special.strip("\x1b[m;:0") != ""
            return special
        return special if special.isprintable() else "".join(map(_visible, special))


def _cut(pieces: list[str], columns: int, width: int) -> str:
    while pieces and columns > width - 1:
        columns -= _columns(pieces.pop())
    return "".join(pieces) + ELLIPSIS if width > 0 else ""


def _visible(char: str) -> str:
    """Escape what is not printable. `isprintable` refuses Cc, Cf, Cs, Co, Cn, Zl, Zp, and the harmless Zs."""
    if char.isprintable():
        return char
    import unicodedata

    if unicodedata.category(char) == "Zs":
        return char
    code = ord(char)
    wide = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(char, wide)


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    import unicodedata

    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def command_text(spec: RunSpec) -> str:
    """Return a run's command as a person would type it in a shell, with the interpreter by its short name and without
    what looks like a credential."""
    from backprop.scheduler.home.credentials import masked_words

    first = Path(spec.argv[0]).name if spec.argv[0] == spec.program else spec.argv[0]
    return shlex.join(masked_words((first, *spec.argv[1:])))
