"""Walks the files that a pattern names: `glob.glob(recursive=True)` in small steps, so that a scan may pause halfway.

As in glob, `*` and `?` leave out names that begin with a dot, and `**` stands for any number of folders. Unlike there,
`**` follows no link, so that a link to a folder above makes no endless tree.
"""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MAX_DEPTH: Final = 32
"""Each level holds a descriptor open while a scan pauses."""
_MAGIC: Final = re.compile(r"[*?\[]")


def walk(pattern: str) -> Iterator[str | None]:
    """Yield each path that an absolute `pattern` names, and None for each entry passed on the way.

    Raises nothing: what cannot be read is left out.
    """
    yield from _walk("/", _parts(pattern), 0)


def fixed_folder(pattern: str) -> Path:
    """Return the deepest folder that every path of `pattern` is in."""
    parts = _parts(pattern)
    fixed = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - 1)
    return Path("/", *parts[: max(fixed, 0)])


def matches(path: str, pattern: str) -> bool:
    """Return whether `walk(pattern)` would yield `path`, if it existed."""
    return _matches(_parts(path), _parts(pattern))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part and part != ".")


def _walk(folder: str, parts: Sequence[str], depth: int) -> Iterator[str | None]:
    yield None
    if not parts:
        yield folder
    elif depth > MAX_DEPTH:
        return
    elif parts[0] == "**":
        yield from _any_depth(folder, parts, depth)
    elif _MAGIC.search(parts[0]):
        yield from _one_level(folder, parts, depth)
    else:
        path = os.path.join(folder, parts[0])  # noqa: PTH118 - ten times as fast, and this is the inner loop
        if os.path.lexists(path):
            yield from _walk(path, parts[1:], depth + 1)


def _one_level(folder: str, parts: Sequence[str], depth: int) -> Iterator[str | None]:
    named = re.compile(fnmatch.translate(parts[0])).match
    hidden = parts[0].startswith(".")
    for entry in _entries(folder):
        yield None
        if not named(entry.name) or (entry.name.startswith(".") and not hidden):
            continue
        if len(parts) == 1:
            yield entry.path
        elif _is_folder(entry, follow=True):
            yield from _walk(entry.path, parts[1:], depth + 1)


def _any_depth(folder: str, parts: Sequence[str], depth: int) -> Iterator[str | None]:
    if len(parts) > 1:
        yield from _walk(folder, parts[1:], depth + 1)
    for entry in _entries(folder):
        yield None
        if entry.name.startswith("."):
            continue
        if len(parts) == 1:
            yield entry.path
        if _is_folder(entry, follow=False):
            yield from _walk(entry.path, parts, depth + 1)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _is_folder(entry: os.DirEntry[str], *, follow: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:
        return False


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(names) and not any(name.startswith(".") for name in names)
        hidden_at = next((at for at, name in enumerate(names) if name.startswith(".")), len(names))
        return any(_matches(names[at:], parts[1:]) for at in range(hidden_at + 1))
    return bool(names) and _named(names[0], parts[0]) and _matches(names[1:], parts[1:])


def _named(name: str, part: str) -> bool:
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
