"""Makes absolute patterns for where a command's checkpoints appear, from a recipe's places or from the user."""

import glob
import posixpath
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from backprop.scheduler.errors import BadCommand

if TYPE_CHECKING:
    from backprop.scheduler.recipes.predicates import Facts
    from backprop.scheduler.recipes.recipe import CheckpointLocation, Recipe, RecipeMatch
    from backprop.scheduler.recipes.source_reader import SourceReader

MAX_GLOBS: Final = 16
MAX_GLOB_BYTES: Final = 4096
_CONFIG_SUFFIXES: Final = (".py", ".yaml", ".yml", ".json", ".toml")
_BRACES: Final = r"\{[^{}/]*\}"


def users_globs(patterns: Sequence[str], cwd: PurePath, reader: "SourceReader") -> tuple[str, ...]:
    """Return absolute patterns of what `--checkpoint-glob` was given, relative to `cwd`. Raises BadCommand."""
    if len(patterns) > MAX_GLOBS:
        raise BadCommand(f"--checkpoint-glob is given {len(patterns)} times; at most {MAX_GLOBS}")
    return tuple(_absolute_of_user(each, cwd, reader) for each in patterns)


def globs_of(
    recipe: "Recipe", facts: "Facts", match: "RecipeMatch | None", cwd: PurePath, reader: "SourceReader"
) -> tuple[str, ...]:
    """Return absolute patterns of a recipe's checkpoints, as this command line and text place them."""
    patterns = [deeper for each in (match.patterns if match else ()) for deeper in _deeper(each)]
    from_command = False
    for place in recipe.places:
        placed, named = _placed(place, facts, reader)
        patterns += placed
        from_command = from_command or named
    config = any(word.endswith(_CONFIG_SUFFIXES) for word in facts.command.arguments)
    if not patterns or (config and not from_command):
        patterns += [f"{depth}{each}" for depth in ("", "*/", "*/*/") for each in recipe.anywhere]
    absolute = (_absolute(each, cwd) for each in patterns if "://" not in each)
    specific = (each for each in absolute if each.rpartition("/")[2].strip("*."))
    return tuple(dict.fromkeys(specific))[:MAX_GLOBS]


def _placed(place: "CheckpointLocation", facts: "Facts", reader: "SourceReader") -> tuple[list[str], bool]:
    """Return the patterns of one place, and whether the command line named it."""
    names = [name for name in place.named if facts.command.value(name)] or place.named
    held = next((paths for name in names if (paths := facts.paths.named(name))), list[str]())
    folders = [re.sub(_BRACES, "*", each) for each in held[:4]]
    if not folders and place.default is not None:
        folders = [place.default]
    folders += place.roots(reader) if place.roots is not None else ()
    below = [_filled(each, facts) for each in place.below]
    patterns = [
        f"{folder.rstrip('/') or '/'}/{each}" if folder else each for folder in folders for each in below
    ]
    return patterns, bool(held) and facts.command.value(names[0]) is not None


def _filled(below: str, facts: "Facts") -> str:
    def value(match: re.Match[str]) -> str:
        held = facts.paths.named(match[1])
        return f"{held[0]}*" if held and "/" not in held[0] else "*"

    return re.sub(r"<(\w+)>", value, below)


def _deeper(pattern: str) -> tuple[str, ...]:
    """Repeat a pattern whose folder is unknown for the current directory and up to three folders below it."""
    name = pattern.lstrip("*/")
    if not pattern.startswith("*/") or not name:
        return (pattern,)
    return tuple(f"{depth}{name}" for depth in ("", "*/", "*/*/", "*/*/*/"))


def _absolute(pattern: str, cwd: PurePath) -> str:
    return posixpath.normpath(posixpath.join(glob.escape(str(cwd)), pattern))


def _absolute_of_user(pattern: str, cwd: PurePath, reader: "SourceReader") -> str:
    def refused(why: str) -> BadCommand:
        return BadCommand(
            f"--checkpoint-glob {pattern[:200]!r} is refused: {why}; give one such as 'out/ckpt-*.pt'"
        )

    length = len(pattern.encode(errors="surrogateescape"))
    if not pattern.strip() or not pattern.isprintable() or length > MAX_GLOB_BYTES:
        raise refused("it is empty, too long, not UTF-8, or has control characters")
    absolute = _absolute(reader.expand_user(pattern), cwd)
    folder, _, name = absolute.rpartition("/")
    if not name.strip("*?."):
        raise refused("its last part fits every name")
    fixed = re.split(r"[*?\[]", folder.replace("[[]", "["), maxsplit=1)[0]
    if glob.has_magic(folder) and not fixed.strip("/"):
        raise refused("it searches the whole machine")
    return absolute
