"""Prints docs/configuration.md with the table of settings of today: `python -m tools.docs.settings`."""

import json
from itertools import groupby
from pathlib import Path
from typing import Final

from backprop.scheduler.config.keys import KEYS, SettingKey
from tools.docs.printing import print_page

PAGE: Final = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN: Final = "<!-- The table is written by: python -m tools.docs.settings -->\n"
END: Final = "<!-- end of the table -->\n"


def page(text: str) -> str:
    """Return the page with the table of today between its marks. Raises ValueError where they are gone, as where the
    output was redirected into the page itself, which empties it before it is read."""
    if BEGIN not in text or END not in text:
        raise ValueError("the page has no table to replace: restore it, and redirect into another file first")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """Return the settings as a Markdown table. Neighbours that are explained alike share a row."""
    rows = [_row(list(keys)) for _, keys in groupby(KEYS, key=lambda key: key.docs or key.help)]
    return "\n".join(["| key | option | default | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _row(keys: list[SettingKey]) -> str:
    first = keys[0]
    text = first.docs or first.help[0].lower() + first.help[1:].rstrip(".")
    cells = (
        ", ".join(f"`{key.name}`" for key in keys),
        _option(first),
        _default(first.default),
        text + ("; **user only**" if first.user_only else ""),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _option(key: SettingKey) -> str:
    spellings = ", ".join(f"`{part}`" for flag in key.flags for part in flag.split("/"))
    return f"{spellings} of `worker`" if key.commands == ("worker",) else spellings


def _default(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = json.dumps(value)
    return f"`{text}`" if isinstance(value, str | tuple) else text


if __name__ == "__main__":
    print_page("docs/configuration.md", lambda: page(PAGE.read_text()), "settings")
