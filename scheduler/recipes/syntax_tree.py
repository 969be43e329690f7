"""Parses a script's text into a syntax tree, also a script newer than the Python that runs Backprop.

Nested quotes in f-strings came with 3.12, `except A, B:` with 3.14. Where the whole cannot be parsed, its blocks are
parsed one by one, and what does not parse alone is left out.
"""

import ast
import textwrap
import warnings
from typing import Final

PARSE_LIMIT_BYTES: Final = 256 << 10
"""Beyond any script written by hand; parsing 1 MiB takes over a second. What follows is not looked at."""
PIECES_LIMIT_CHARACTERS: Final = 8 * PARSE_LIMIT_BYTES
"""Parsed in all when a script is parsed block by block: a block within blocks is tried at each level."""
PIECE_COST_CHARACTERS: Final = 256
"""Counted for each piece besides its length: a call of the parser costs as much."""
_UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)
"""The parser's refusals; the last two for deep nesting."""
_CLAUSES: Final = ("elif ", "else:", "except", "finally:")


def parse_tree(source: bytes) -> ast.Module:
    """Return the tree of as much of the text as can be parsed. Raises nothing."""
    source = source[:PARSE_LIMIT_BYTES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in the user's string is not ours to report
        try:
            return ast.parse(source)
        except _UNPARSABLE:
            return ast.Module(_parsable(source.decode("utf-8-sig", errors="replace")), [])


def _parsable(text: str) -> list[ast.stmt]:
    """Return the statements that parse, in order. Of a block that does not, those inside it are taken."""
    statements: list[ast.stmt] = []
    pending, left = [text.split("\n")], PIECES_LIMIT_CHARACTERS
    while pending and left > 0:
        lines = pending.pop()
        piece = textwrap.dedent("\n".join(lines))
        left -= len(piece) + PIECE_COST_CHARACTERS
        try:
            statements += ast.parse(piece).body
        except _UNPARSABLE:
            blocks = _blocks(lines)
            pending += reversed(blocks) if len(blocks) > 1 else [lines[1:]]
    return statements


def _blocks(lines: list[str]) -> list[list[str]]:
    """Split before each line indented no further than the first, but for what goes on with the block above it."""
    blocks: list[list[str]] = []
    base = len(lines[0]) - len(lines[0].lstrip())
    for line in lines:
        content = line.lstrip()
        indent = len(line) - len(content)
        goes_on = not content or indent > base or content[0] in "#)]}"
        goes_on = goes_on or (indent == base and content.startswith(_CLAUSES))
        if not blocks or not goes_on:
            blocks.append([])
        blocks[-1].append(line)
    return blocks
