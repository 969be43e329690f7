"""Writes the difference of two contents as `git apply` takes it, and carries such a patch out. Pure.

Not by git, whose `diff` runs programs that a repository names. Contents are bytes; a line ends with a newline alone.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

CONTEXT: Final = 3
MOST_PAIRS: Final = 25_000_000
"""Of old and new lines; where more are to be compared, all of them are replaced."""
NO_NEWLINE: Final = b"\\ No newline at end of file\n"
_HEAD: Final = b"diff --git "
_HUNK: Final = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_ESCAPES: Final = {
    ord(char): b"\\" + letter.encode() for char, letter in zip('\a\b\t\n\v\f\r"\\', 'abtnvfr"\\', strict=True)
}

Opcode = tuple[str, int, int, int, int]


class Content(msgspec.Struct, frozen=True):
    """A file as git keeps it. `mode`: "100644", "100755" or "120000", a link, whose content is its target."""

    mode: str
    body: bytes


def patch(path: bytes, old: Content | None, new: Content | None) -> bytes:
    """Return the section of one file. None: there is none."""
    before, after = _quoted(b"a/" + path), _quoted(b"b/" + path)
    head = [_HEAD + before + b" " + after + b"\n"]
    if old is None and new is not None:
        head.append(b"new file mode %b\n" % new.mode.encode())
    elif new is None and old is not None:
        head.append(b"deleted file mode %b\n" % old.mode.encode())
    elif old is not None and new is not None and old.mode != new.mode:
        head.append(b"old mode %b\nnew mode %b\n" % (old.mode.encode(), new.mode.encode()))
    hunks = list(hunks_of(old.body if old is not None else b"", new.body if new is not None else b""))
    if hunks:
        # Without the tab, the end of a name with a space is not known.
        end = b"\t\n" if b" " in path else b"\n"
        head.append(b"--- " + (b"/dev/null\n" if old is None else before + end))
        head.append(b"+++ " + (b"/dev/null\n" if new is None else after + end))
    return b"".join([*head, *hunks])


def sections(text: bytes) -> dict[bytes, bytes]:
    """Return the sections of a patch that this module has written, by what stands behind `diff --git`."""
    parts = re.split(rb"^diff --git ", text, flags=re.MULTILINE)[1:]
    return {part.partition(b"\n")[0]: part for part in parts}


def heading(path: bytes) -> bytes:
    """Return the name of a file's section, as `sections` has it."""
    return _quoted(b"a/" + path) + b" " + _quoted(b"b/" + path)


def apply(section: bytes, old: bytes) -> bytes:
    """Return the content that a section makes of the old one. Raises ValueError where it does not fit."""
    before, at = _lines(old), 0
    done: list[bytes] = []
    for begin, changes in _hunks_in(section):
        done += before[at:begin]
        at = begin
        for mark, text in changes:
            if mark != b"+":
                if before[at : at + 1] != [text]:
                    raise ValueError("the patch does not fit")
                at += 1
            if mark != b"-":
                done.append(text)
    return b"".join([*done, *before[at:]])


def hunks_of(old: bytes, new: bytes) -> Iterator[bytes]:
    """Yield the hunks of a unified diff, each line with its newline."""
    a, b = _lines(old), _lines(new)
    for group in _groups(a, b):
        first, last = group[0], group[-1]
        yield b"@@ -%b +%b @@\n" % (_range(first[1], last[2]), _range(first[3], last[4]))
        for tag, i1, i2, j1, j2 in group:
            sides = ((b" ", a[i1:i2]),) if tag == "equal" else ((b"-", a[i1:i2]), (b"+", b[j1:j2]))
            for mark, lines in sides:
                for line in lines:
                    yield mark + line if line.endswith(b"\n") else mark + line + b"\n" + NO_NEWLINE


def _hunks_in(section: bytes) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
    """Yield each hunk's first old line, from 0, and its lines with their marks. Raises ValueError."""
    lines = _lines(section)
    at = 0
    while at < len(lines):
        match = _HUNK.match(lines[at])
        at += 1
        if match is None:
            continue
        old, new = (1 if count is None else int(count) for count in match.group(2, 3))
        begin = int(match[1]) - (old > 0)
        changes: list[tuple[bytes, bytes]] = []
        # By their number: a line that is removed may look like a heading.
        while old > 0 or new > 0 or lines[at : at + 1] == [NO_NEWLINE]:
            if at == len(lines):
                raise ValueError("the patch is cut off")
            mark, text = lines[at][:1], lines[at][1:]
            at += 1
            if mark == b"\\":
                changes[-1] = (changes[-1][0], changes[-1][1].removesuffix(b"\n"))
                continue
            changes.append((mark, text))
            old -= mark != b"+"
            new -= mark != b"-"
        yield begin, changes


def _groups(a: Sequence[bytes], b: Sequence[bytes]) -> Iterator[list[Opcode]]:
    """Yield the hunks as opcodes of difflib, with lines of context."""
    from difflib import SequenceMatcher

    if a == b:
        return
    head = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    most = min(len(a), len(b)) - head
    pairs = enumerate(zip(reversed(a), reversed(b), strict=False))
    tail = next((at for at, (x, y) in pairs if at >= most or x != y), most)
    # What is equal at both ends is left out of the search, and put back as context.
    i, j = max(head - CONTEXT, 0), max(tail - CONTEXT, 0)
    old, new = a[i : len(a) - j], b[i : len(b) - j]
    if len(old) * len(new) > MOST_PAIRS:
        below = tail - j
        yield [
            ("equal", i, head, i, head),
            ("replace", head, len(a) - tail, head, len(b) - tail),
            ("equal", len(a) - tail, len(a) - tail + below, len(b) - tail, len(b) - tail + below),
        ]
        return
    for group in SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT):
        yield [(tag, i + i1, i + i2, i + j1, i + j2) for tag, i1, i2, j1, j2 in group]


def _range(start: int, stop: int) -> bytes:
    """Return `start,length` as a hunk's heading has it: an empty range lies behind the line that it names."""
    length = stop - start
    return b"%d,%d" % (start + (length > 0), length)


def _lines(content: bytes) -> list[bytes]:
    """Split at newlines alone, as git does, and not at a carriage return."""
    parts = content.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _quoted(name: bytes) -> bytes:
    """Return a name as git writes it: in quotes where a byte is not printable ASCII."""
    plain = all(32 <= byte < 127 and byte not in b'"\\' for byte in name)
    if plain:
        return name
    return b'"%b"' % b"".join(
        _ESCAPES.get(byte) or (bytes([byte]) if 32 <= byte < 127 else b"\\%03o" % byte) for byte in name
    )
