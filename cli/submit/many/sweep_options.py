"""Reads --grid, --array and --params, the three sources of a sweep's values."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from backprop.cli.submit.many.sweep import MOST, SweepSpec
from backprop.cli.submit.names import refuse_undecodable
from backprop.scheduler.errors import BadCommand

_KEY: Final = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_QUOTED: Final = re.compile(r"""(?:"((?:[^"]|"")*)"|'([^']*)')(?=,|$)""")
_CLOSES: Final = {"(": ")", "[": "]", "{": "}"}
_LIKE_A_RANGE: Final = re.compile(r"-?[\d.eE+-]+\.\.-?[\d.eE+-]+")
_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,18}))?", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", re.ASCII)


def read_sweep(values: Mapping[str, Any]) -> SweepSpec:
    """Return what a command's parameters vary. Raises BadCommand."""
    for text in values["grid"]:
        refuse_undecodable(text)
    indices, at_once = read_array(values["array"]) if values["array"] is not None else ((), None)
    rows = read_params(Path(values["params"])) if values["params"] is not None else ()
    return SweepSpec(rows=rows, grid=read_grid(values["grid"]), indices=indices, at_once=at_once)


def read_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read `KEY=V,V,…` texts; `a..b` and `a..b..step` are whole numbers. Raises BadCommand."""
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise BadCommand(f"--grid {text} is not KEY=VALUE,VALUE,…")
        if key in grid:
            raise BadCommand(f"--grid {key} is given twice; put all its values into one")
        values = [value for item in _items(text, listed) for value in _values(text, item)]
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise BadCommand(f"--grid {text} has {twice} twice")
        grid[key] = values
    return grid


def read_array(text: str) -> tuple[list[int], int | None]:
    """Return (indices, how many at once) of `1-100%4`, `1,3,5-7` or `0-90:10`. Raises BadCommand."""
    listed, percent, most = text.partition("%")
    if percent and not (most.isdecimal() and 0 < int(most) <= MOST):
        raise BadCommand(f"--array {text}: after % comes how many may run at once, from 1")
    indices: dict[int, None] = {}
    for item in listed.split(","):
        span = _SPAN.fullmatch(item.strip())
        if span is None or (span[2] and int(span[2]) < int(span[1])) or span[3] in ("0", "00"):
            raise BadCommand(f"--array {text}: {item or 'an empty item'} is neither a number nor FIRST-LAST")
        numbers = range(int(span[1]), int(span[2] or span[1]) + 1, int(span[3] or 1))
        if len(numbers) > MOST:
            raise BadCommand(f"--array {text} has {len(numbers):,} runs; one command queues at most {MOST:,}")
        for number in numbers:
            if number in indices:
                raise BadCommand(f"--array {text} has {number} twice")
            indices[number] = None
    return list(indices), int(most) if percent else None


def read_params(path: Path) -> list[dict[str, str]]:
    """Return the values of one run per row of a CSV file with a header, or per JSON object, one on each line.

    Numbers stay as they are written. Raises BadCommand, naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCommand(f"--params {path} is not UTF-8") from error
    except OSError as error:
        raise BadCommand(f"--params {path} cannot be read: {error.strerror}") from error
    if path.suffix == ".csv":
        rows = list(_csv_rows(path, text))
    elif path.suffix in (".jsonl", ".ndjson"):
        rows = list(_json_rows(path, text))
    else:
        raise BadCommand(f"--params {path} ends neither in .csv nor in .jsonl")
    if not rows:
        raise BadCommand(f"--params {path} has no rows")
    return rows


def _items(text: str, listed: str) -> list[str]:
    """Split at commas. Quotes around a value, which are left out, and brackets in it keep it together."""
    items, at = list[str](), 0
    while True:
        quoted = _QUOTED.match(listed, at)
        end = quoted.end() if quoted else _end_of_value(text, listed, at)
        whole = listed[at:end]
        items.append(
            (quoted[1].replace('""', '"') if quoted[1] is not None else quoted[2]) if quoted else whole
        )
        if end == len(listed):
            break
        at = end + 1
    if "" in items:
        raise BadCommand(f"--grid {text} has an empty value")
    return items


def _end_of_value(text: str, listed: str, at: int) -> int:
    """Return where the value that begins at `at` ends: at a comma outside brackets, or at the end of the text."""
    if listed[at : at + 1] == '"':
        raise BadCommand(
            f'--grid {text}: a value in double quotes ends at a quote before a comma; "" is one in it'
        )
    awaited, quote = list[str](), ""
    for place in range(at, len(listed)):
        char = listed[place]
        if quote:
            quote = "" if char == quote else quote
        elif char == "," and not awaited:
            return place
        elif awaited and char in "\"'":
            quote = char
        elif char in _CLOSES:
            awaited.append(_CLOSES[char])
        elif char in _CLOSES.values() and (not awaited or awaited.pop() != char):
            raise BadCommand(
                f"--grid {text}: {char} closes nothing; put a value with such a bracket into quotes"
            )
    if awaited:
        raise BadCommand(
            f"--grid {text}: {awaited[-1]} is missing; put a value with such a bracket into quotes"
        )
    return len(listed)


def _values(text: str, item: str) -> Sequence[str]:
    span = _RANGE.fullmatch(item)
    if span is None:
        if _LIKE_A_RANGE.fullmatch(item):
            raise BadCommand(
                f"--grid {text}: {item} is not an integer range; list the values, e.g. lr=1e-3,1e-4"
            )
        return [item]
    first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
    if step == 0:
        raise BadCommand(f"--grid {text}: the step of a range cannot be 0")
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    if len(numbers) > MOST:
        raise BadCommand(
            f"--grid {text} has {len(numbers):,} values; one command queues at most {MOST:,} runs"
        )
    return [str(number) for number in numbers]


def _csv_rows(path: Path, text: str) -> Iterator[dict[str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, list[str]())]
        if not names or "" in names or len(set(names)) < len(names):
            raise BadCommand(f"--params {path}, line 1: every column needs a name of its own")
        for cells in reader:
            if cells:
                if len(cells) != len(names):
                    where = f"--params {path}, line {reader.line_num}"
                    raise BadCommand(f"{where}: {len(cells)} values for {len(names)} columns")
                yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise BadCommand(f"--params {path}, line {reader.line_num}: {error}") from error


def _json_rows(path: Path, text: str) -> Iterator[dict[str, str]]:
    names: set[str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"--params {path}, line {number}"
        try:
            cells = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise BadCommand(f"{where} is not a JSON object: {error}") from error
        names = set(cells) if names is None else names
        if set(cells) != names:
            odd = ", ".join(sorted(set(cells) ^ names))
            raise BadCommand(f"{where} does not have the keys of the first row: {odd}")
        row = {key: _json_text(bytes(value)) for key, value in cells.items()}
        if any("\0" in value for value in row.values()):
            raise BadCommand(f"{where} holds a NUL, which an argument cannot have")
        yield row


def _json_text(raw: bytes) -> str:
    """Return a string's content, and the written form of anything else: 1e-3 stays 1e-3."""
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()
