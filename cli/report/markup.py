"""Makes HTML and SVG elements of text that may be hostile."""

import html
from typing import Final

from backprop.cli.render.terminal_text import safe

VOID: Final = frozenset({"meta", "rect", "line", "polyline", "br"})


def said(text: str, width: int | None = None) -> str:
    """Return text from outside for a page: on one line, without control characters, cut to so many columns, escaped."""
    return html.escape(safe(text, width))


def element(name: str, /, *children: str, **attributes: object) -> str:
    """Return an element around finished markup. `cls` is its class; underscores of other names become hyphens."""
    told = "".join(
        f' {"class" if key == "cls" else key.replace("_", "-")}="{html.escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not children:
        return f"<{name}{told}/>" if name not in ("meta", "br") else f"<{name}{told}>"
    return f"<{name}{told}>{''.join(children)}</{name}>"


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
