"""Finds and reads the configuration files, and refuses those that are malformed or that others could have written.

The meaning of their keys is in `settings`. A checkout is not trusted: a file that somebody else could have written is
refused rather than obeyed, and nothing above the current directory is read.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec

from backprop.scheduler.errors import BadCommand, BadConfig

MAX_CONFIG_BYTES = 1024 * 1024
JSON_NAMES = ("backprop.config.json", ".backprop.json")
PYPROJECT = "pyproject.toml"
USER_NAME = "config.json"


class ConfigFile(msgspec.Struct, frozen=True):
    """One configuration file: `values` is its object with `gpu` flattened (`gpu.probe`), still unchecked."""

    path: Path
    values: Mapping[str, object]


def current_directory() -> Path:
    """Return the current directory. Raises BadCommand when it was removed: the kernel has no name for it then."""
    try:
        return Path.cwd()
    except OSError as error:
        raise BadCommand("the current directory is gone; cd to one that exists") from error


def project_file(cwd: Path | None, config: Path | None) -> ConfigFile | None:
    """Return the project's file: `config` (relative to `cwd`; must exist), else the first in `cwd`, else None.

    `cwd`: None for one that was removed, which holds no file.
    Only `cwd` is searched, never its parents: a file further up may belong to somebody else's project.
    Raises BadConfig.
    """
    if config is not None:
        path = (cwd or Path("/")) / config
        file = _toml_file(path) if path.suffix == ".toml" else _json_file(path)
        if file is None:
            missing = "has no [tool.backprop] table" if path.exists() else "does not exist"
            raise BadConfig(f"{path}: {missing}; --config must name a configuration file")
        return file
    if cwd is None:
        return None
    for name in JSON_NAMES:
        if file := _json_file(cwd / name):
            return file
    return _toml_file(cwd / PYPROJECT)


def user_file(home: Path) -> ConfigFile | None:
    """Return `config.json` in BACKPROP_HOME, or None if there is none. Raises BadConfig."""
    return _json_file(home / USER_NAME)


def read_trusted(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> bytes | None:
    """Return the bytes of a regular file that only the user or root could have written; None if there is no such file.

    Group-writable is accepted: with a umask of 002 and a group per user, every file is.
    Raises BadConfig: not a regular file, unreadable, larger than `max_bytes`, another owner, world-writable.
    """
    opened = _read_regular(path, max_bytes)
    if opened is None:
        return None
    data, info = opened
    _refuse_untrusted(path, info)
    _refuse_large(path, data, max_bytes)
    return data


def decode_text(path: Path, data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark. Raises BadConfig."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def parse_json(path: Path, text: str) -> object:
    """Parse JSON as the standard has it: no NaN, no Infinity, no key twice in one object. Raises BadConfig."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        seen: dict[str, object] = {}
        for key, value in items:
            if key in seen:
                raise BadConfig(f"{path}: {shown(key)} is given twice; keep one")
            seen[key] = value
        return seen

    def constant(name: str) -> object:
        raise BadConfig(f"{path}: {name} is not a number JSON knows; write a finite number or null")

    try:
        return cast("object", json.loads(text, object_pairs_hook=pairs, parse_constant=constant))
    except json.JSONDecodeError as error:
        raise BadConfig(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        # A number of over 4300 digits, or brackets nested some thousand deep: neither is a JSONDecodeError.
        raise BadConfig(f"{path}: not a configuration: a number too long or an object too deep") from None


def shown(value: object) -> str:
    """Return a value as an error may quote it: one line of ASCII, at most 60 characters, whatever was given."""
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _json_file(path: Path) -> ConfigFile | None:
    data = read_trusted(path)
    if data is None:
        return None
    return ConfigFile(path, _flat(path, parse_json(path, decode_text(path, data))))


def _toml_file(path: Path) -> ConfigFile | None:
    """Return the [tool.backprop] table of a TOML file; None if the file or the table is absent."""
    opened = _read_regular(path, MAX_CONFIG_BYTES)
    # Most pyproject.toml files do not mention Backprop: those are left alone, whatever is wrong with them.
    if opened is None or (len(opened[0]) <= MAX_CONFIG_BYTES and b"backprop" not in opened[0]):
        return None
    data, info = opened
    _refuse_large(path, data, MAX_CONFIG_BYTES)
    tables = _parse_toml(path, decode_text(path, data))
    tool = tables.get("tool")
    table = cast("dict[str, object]", tool).get("backprop") if isinstance(tool, dict) else None
    if table is None:
        return None
    _refuse_untrusted(path, info)
    return ConfigFile(path, _flat(path, table))


def _parse_toml(path: Path, text: str) -> dict[str, object]:
    import tomllib  # 17 ms that a directory without such a table should not pay

    try:
        return cast("dict[str, object]", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{path}: not TOML: {error}") from None
    except (ValueError, RecursionError):
        raise BadConfig(f"{path}: not a configuration: a number too long or an array too deep") from None


NESTED = {"gpu": '{"probe": "auto"}', "hooks": '{"failed": "notify-send backprop failed"}'}


def _flat(path: Path, settings: object) -> dict[str, object]:
    """Return the settings with dotted keys for those nested in `gpu`, as in the npm tool's files, and `hooks`."""
    values: dict[str, object] = {}
    for key, value in _table(path, settings, "expected an object of settings").items():
        if key in NESTED:
            inner = _table(path, value, f"{key}: expected an object such as {NESTED[key]}")
            leaves = {f"{key}.{name}": leaf for name, leaf in inner.items()}
        else:
            leaves = {key: value}
        for twice in values.keys() & leaves.keys():
            raise BadConfig(f"{path}: {shown(twice)} is given twice; keep one")
        values.update(leaves)
    return values


def _table(path: Path, value: object, expected: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadConfig(f"{path}: {expected}; got {shown(value)}")
    return cast("dict[str, object]", value)


def _read_regular(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result] | None:
    """Return at most `max_bytes` + 1 bytes and the stat of the very file read; None if there is none."""
    try:
        # O_NONBLOCK: opening a FIFO of that name would otherwise block for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadConfig(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise BadConfig(f"{path}: not a regular file; a configuration is a file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(max_bytes + 1), info
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)


def _refuse_large(path: Path, data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise BadConfig(f"{path}: larger than {max_bytes // 1024} KiB; a configuration is never that large")


def _refuse_untrusted(path: Path, info: os.stat_result) -> None:
    if info.st_uid not in (0, os.geteuid()):
        raise BadConfig(f"{path}: owned by uid {info.st_uid}, not by you or root; copy it, or remove it")
    if info.st_mode & stat.S_IWOTH:
        raise BadConfig(f"{path}: anybody can write it; to accept what it says: chmod o-w {path}")
