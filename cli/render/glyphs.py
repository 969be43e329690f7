"""Draws bars and small curves out of letters, and has plain ones for a terminal that knows ASCII alone."""

import os
from collections.abc import Sequence
from typing import Final

import msgspec


class Glyphs(msgspec.Struct, frozen=True):
    """The signs of one kind of terminal. `levels`: from low to high. `plain`: what stands for other signs in texts."""

    full: str
    empty: str
    levels: str
    good: str
    again: str
    bad: str
    chosen: str
    plain: bool

    def bar(self, share: float, width: int) -> tuple[str, str]:
        """Return the full and the empty part of a bar."""
        full = round(min(max(share, 0.0), 1.0) * width)
        return self.full * full, self.empty * (width - full)

    def curve(self, values: Sequence[float], width: int, top: float | None = None) -> str:
        """Return values as one line of at most `width` signs. `top`: the highest level means this much, the lowest
        zero; None: the highest and the lowest value."""
        finite = [value for value in values if value - value == 0]
        if not finite or width < 1:
            return ""
        cells = min(width, len(finite))
        chosen = [finite[(at + 1) * len(finite) // cells - 1] for at in range(cells)]
        low, high = (min(chosen), max(chosen)) if top is None else (0.0, top)
        span = (high - low) or 1.0
        most = len(self.levels) - 1
        return "".join(
            self.levels[round(min(max((value - low) / span, 0.0), 1.0) * most)] for value in chosen
        )

    def text(self, words: str) -> str:
        """Return words with the signs that this terminal has."""
        if not self.plain:
            return words
        for sign, plain in (("≈", "~"), ("…", "..."), ("·", "-"), ("°C", "C")):
            words = words.replace(sign, plain)
        return words.encode("ascii", "backslashreplace").decode()


UNICODE: Final = Glyphs("━", "─", "▁▂▃▄▅▆▇█", "✓", "↻", "✗", "▸", False)
ASCII: Final = Glyphs("#", "-", "_.-:=+*#", "+", ">", "x", ">", True)


def glyphs_of(encoding: str | None) -> Glyphs:
    """Return the signs for a stream of this encoding, on this terminal."""
    is_plain = (encoding or "").lower().replace("-", "") != "utf8" or os.environ.get("TERM") == "dumb"
    return ASCII if is_plain else UNICODE
