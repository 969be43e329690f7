"""Checks and makes the names, ids and words that a user's text may become."""

from pathlib import Path
from typing import Final

from backprop.scheduler.errors import BadCommand

NAME_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
NAME_LIMIT: Final = 64
KEY_LIMIT: Final = 128


def checked(option: str, text: str) -> str:
    """Return `text` if it may stand in a file name and on a command line. Raises BadCommand, naming `option`."""
    good = 0 < len(text) <= NAME_LIMIT and set(text) <= NAME_CHARACTERS and text[0] not in ".-"
    if not good:
        raise BadCommand(
            f"{option} {text} is refused: use 1 to {NAME_LIMIT} letters, digits, dots, dashes and underscores, and do"
            " not begin with a dot or a dash"
        )
    return text


def checked_run_name(option: str, text: str) -> str:
    """Return `text` if it may be a run's display name: any letters and signs but a slash, and nothing that would be
    read as an option, as a hidden file or as `@`, the newest run. Raises BadCommand, naming `option`."""
    good = 0 < len(text) <= NAME_LIMIT and text.isprintable() and "/" not in text
    if not good or text[0] in ".-@" or text != text.strip():
        raise BadCommand(
            f"{option} {text} is refused: use 1 to {NAME_LIMIT} letters, digits and signs without a slash, and do not"
            " begin with a dot, a dash, @ or a space"
        )
    return text


def checked_key(text: str) -> str:
    """Return `text` if it may be a run's key. Raises BadCommand."""
    if not 0 < len(text) <= KEY_LIMIT or not text.isprintable() or text != text.strip():
        raise BadCommand(f"--key {text} is refused: use 1 to {KEY_LIMIT} letters, digits and signs")
    return text


def as_run_name(text: str) -> str:
    """Return `text` with a dash for each character that a run's name cannot have."""
    return "".join(char if char.isprintable() and char != "/" else "-" for char in text)


def as_name(text: str) -> str:
    """Return `text` with a dash for each character that a name cannot have."""
    return "".join(char if char in NAME_CHARACTERS else "-" for char in text)


def name_of(path: str | Path) -> str:
    """Return the name of a run whose user gave none: that of its script or program, without the suffix."""
    return as_run_name(Path(path).stem[:NAME_LIMIT]).strip().lstrip(".-@") or "run"


def refuse_undecodable(word: str) -> None:
    """Raise BadCommand for a word that is not UTF-8: neither the database nor JSON takes it."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise BadCommand(f"{word!r} is not UTF-8; rename it") from error
