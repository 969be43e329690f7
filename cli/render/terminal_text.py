"""The output boundary: text of other people's making, rendered harmless for a terminal.

A run's name, a path or a log line may hold escape sequences that retitle the window, write the clipboard,
move the cursor over what was printed, or turn the reading direction; rich passes them all through. Whatever
is shown goes through `safe` first (and into rich as a `Text`, or through `rich.markup.escape`); a log that is
streamed to a terminal goes through `Colours`, which lets colours pass and nothing else.
"""

import codecs
import re
import unicodedata

ELLIPSIS = "…"

# ECMA-48: ESC [, parameters, intermediates, one final byte. Bounded: a log can hold anything after an ESC [.
_CSI = r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_SPECIAL = re.compile(_CSI + r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|[^\x00-\x9f]+")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8})?\Z")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str, width: int | None = None) -> str:
    """`text` on one line, with every control, format, unassigned, surrogate or private character spelled out.

    `width`: the most terminal columns it may take; what is cut ends in an ellipsis. Wide characters take two.
    Combining marks count one although they take none, so that a text full of them cannot grow without end.
    """
    if width is None:
        return "".join(map(_visible, text))
    pieces: list[str] = []
    columns = 0
    for char in text:
        for piece in _visible(char):
            pieces.append(piece)
            columns += _columns(piece)
            if columns > width:  # seen as soon as it is so: a text of any length costs no more than `width`
                return _cut(pieces, columns, width)
    return "".join(pieces)


def colours_only(data: bytes) -> bytes:
    """All of a text at once through `Colours`."""
    colours = Colours()
    return colours.feed(data) + colours.close()


class Colours:
    """A filter for a stream of bytes: lets UTF-8 text, newline, tab, return and colours (SGR) pass.

    Other control sequences (cursor, erase, modes) are dropped: progress bars are full of them. Any other
    escape, control or format character is made visible, so that it has no effect. Not UTF-8: replaced.
    Cut the stream where you like: a sequence or character cut in two is held back until its end is there.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        text = self._held + self._decode(data)
        cut = _UNFINISHED.search(text)
        end = cut.start() if cut else len(text)
        self._held = text[end:]
        return self._filter(text[:end])

    def close(self) -> bytes:
        """What was held back, visible, and the end of a colour that was left on."""
        text = self._held + self._decode(b"", True)
        self._held = ""
        return self._filter(text) + (b"\x1b[0m" if self._coloured else b"")

    def _filter(self, text: str) -> bytes:
        return _SPECIAL.sub(self._replace, text).encode(errors="replace")

    def _replace(self, match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith("\x1b["):
            if not _SGR.fullmatch(found):
                return ""
            self._coloured = found.strip("\x1b[m;:0") != ""
            return found
        return found if found.isprintable() else "".join(map(_visible, found))


def _cut(pieces: list[str], columns: int, width: int) -> str:
    while pieces and columns > width - 1:
        columns -= _columns(pieces.pop())
    return "".join(pieces) + ELLIPSIS if width > 0 else ""


def _visible(char: str) -> str:
    """`isprintable` refuses Cc, Cf, Cs, Co, Cn, Zl, Zp, and also the spaces (Zs), which are harmless."""
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    code = ord(char)
    wide = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(char, wide)


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
