"""Finds the modules that a script imports from its own folder: its trainer often lies there. Reads texts, runs nothing.

Bounded: two levels, so many modules and bytes in all. What Python would find elsewhere under the same name is unknown
here; a file beside the script comes first on its path.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Final

from backprop.scheduler.recipes.source_reader import SourceReader

LEVELS: Final = 2
MOST_MODULES: Final = 32
LIMIT_BYTES: Final = 1 << 20
_IMPORT: Final = re.compile(
    rb"^[ \t]{0,40}(?:from[ \t]{1,8}(?P<dots>\.{0,9})(?P<module>[\w.]{0,200})[ \t]{1,8}import[ \t]{1,8}\(?"
    rb"(?P<names>[\w, \t]{0,1000})|import[ \t]{1,8}(?P<modules>[\w., \t]{1,1000}))",
    re.MULTILINE,
)


@lru_cache(maxsize=4)
def own_modules(
    script: PurePath, text: bytes, roots: tuple[PurePath, ...], reader: SourceReader
) -> tuple[bytes, ...]:
    """Return the texts of the modules that `script` imports from one of the `roots`, the nearest first."""
    texts: list[bytes] = []
    seen, left = {script}, LIMIT_BYTES
    level = [(script, text)]
    for _ in range(LEVELS):
        deeper: list[tuple[PurePath, bytes]] = []
        for path in (each for module, source in level for each in _imported(module, source, roots)):
            if path in seen or len(texts) >= MOST_MODULES or left <= 0 or not reader.is_file(path):
                continue
            seen.add(path)
            source = reader.read(path, left)
            left -= len(source)
            texts.append(source)
            deeper.append((path, source))
        level = deeper
    return tuple(texts)


def _imported(module: PurePath, text: bytes, roots: Sequence[PurePath]) -> Iterator[PurePath]:
    """Yield where the modules that a text imports would lie."""
    for match in _IMPORT.finditer(text):
        if match["modules"] is not None:
            for each in _words(match["modules"]):
                yield from _files(each, roots)
            continue
        dots, name = len(match["dots"]), match["module"].decode()
        folders = roots if not dots else [module.parents[min(dots, len(module.parents)) - 1]]
        if name:
            yield from _files(name, folders)
        inside = [folder.joinpath(*name.split(".")) for folder in folders] if name else folders
        if dots or name.partition(".")[0] not in sys.stdlib_module_names:
            for each in _words(match["names"]):
                yield from (folder / f"{each}.py" for folder in inside)


def _words(listed: bytes) -> list[str]:
    """Return the first word of each item: `a as b, c` names a and c."""
    return [words[0] for item in listed.decode().split(",") if (words := item.split())]


def _files(name: str, folders: Sequence[PurePath]) -> Iterator[PurePath]:
    parts = [part for part in name.split(".") if part]
    if parts and parts[0] not in sys.stdlib_module_names:
        for folder in folders:
            path = folder.joinpath(*parts)
            yield from (path.with_name(f"{path.name}.py"), path / "__init__.py")
