"""One command, many runs: which values there are, and where they go into the command."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import BadCommand

MOST: Final = 100_000
"""Runs that one command may queue: beyond, a typing error is likelier than a night that long."""
INDEX: Final = "index"
_KEY: Final = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_LIKE_A_RANGE: Final = re.compile(r"-?[\d.eE+-]+\.\.-?[\d.eE+-]+")
_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,18}))?", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", re.ASCII)


@dataclass(frozen=True)
class Variant:
    """One of the runs: its values by key. `index`: of an array, else None. `label`: what tells it from the others."""

    values: Mapping[str, str]
    index: int | None = None
    label: str = ""


@dataclass(frozen=True)
class SweepSpec:
    """What is varied: rows of a file, for each the grid's product, for each of those the array's indices. What stands
    last varies fastest. `at_once`: how many may run at the same time, None for no such limit."""

    rows: Sequence[Mapping[str, str]] = ()
    grid: Mapping[str, Sequence[str]] | None = None
    indices: Sequence[int] = ()
    at_once: int | None = None

    def __post_init__(self) -> None:
        """Raises BadCommand when it is too much, or a key has two sources."""
        if len(self) > MOST:
            raise BadCommand(f"that is {len(self):,} runs; one command queues at most {MOST:,}")
        keys = [*(self.grid or ()), *((INDEX,) if self.indices else ()), *(self.rows[0] if self.rows else ())]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise BadCommand(f"{{{twice}}} has two sources: call one of them otherwise")

    def __len__(self) -> int:
        count = max(len(self.rows), 1) * max(len(self.indices), 1)
        for values in (self.grid or {}).values():
            count *= len(values)
        return count

    @property
    def keys(self) -> frozenset[str]:
        """Every key that is replaced."""
        found = {*(self.grid or ()), *(self.rows[0] if self.rows else ())}
        return frozenset(found | {INDEX}) if self.indices else frozenset(found)

    def variants(self) -> Iterator[Variant]:
        names = list(self.grid or ())
        for number, row in enumerate(self.rows or ({},), 1):
            for chosen in product(*(self.grid or {}).values()):
                values = {**row, **dict(zip(names, chosen, strict=True))}
                label = "-".join((*([str(number)] if self.rows else ()), *chosen))
                if not self.indices:
                    yield Variant(values, label=label)
                for index in self.indices:
                    with_index = f"{label}-{index}" if label else str(index)
                    yield Variant({**values, INDEX: str(index)}, index, with_index)

    def unused(self, used: frozenset[str]) -> str | None:
        """Why these runs would be copies that differ in nothing, or None. `used`: keys that are somewhere replaced.
        An array may be told apart by BACKPROP_ARRAY_INDEX, a file may have columns beside those needed."""
        for key in self.grid or ():
            if key not in used:
                return f"{{{key}}} stands nowhere in the arguments, --name or --env, so --grid {key} changes nothing"
        if self.rows and not used & frozenset(self.rows[0]):
            names = ", ".join(f"{{{key}}}" for key in self.rows[0])
            return f"none of {names} stands in the arguments, --name or --env, so --params changes nothing"
        return None


class Template:
    """Puts values into texts, in one pass: what a value holds is not replaced again. Braces around anything but a
    known key stay."""

    def __init__(self, keys: frozenset[str]) -> None:
        names = "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))
        self._pattern = re.compile(r"\{(" + names + r")\}") if keys else None
        self.used: set[str] = set()

    def of(self, text: str, made: Callable[[str], str] = str) -> Callable[[Mapping[str, str]], str]:
        """What gives `text` for a variant's values. `made`: what becomes of each value first."""
        pieces = self._pattern.split(text) if self._pattern is not None else [text]
        self.used.update(pieces[1::2])
        if len(pieces) == 1:
            return lambda _: text
        fixed, keys = pieces[0::2], pieces[1::2]

        def filled(values: Mapping[str, str]) -> str:
            parts = [fixed[0]]
            for key, after in zip(keys, fixed[1:], strict=True):
                parts += (made(values[key]), after)
            return "".join(parts)

        return filled


def read_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """`KEY=V,V,…` each; `a..b` and `a..b..step` are whole numbers. Raises BadCommand."""
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, equals, told = text.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise BadCommand(f"--grid {text} is not KEY=VALUE,VALUE,…")
        if key in grid:
            raise BadCommand(f"--grid {key} is there twice; put all its values into one")
        values = [value for item in _items(text, told) for value in _values(text, item)]
        if len(set(values)) < len(values):
            raise BadCommand(
                f"--grid {text} has {next(one for one in values if values.count(one) > 1)} twice"
            )
        grid[key] = values
    return grid


def _items(text: str, told: str) -> list[str]:
    """Commas part values, double quotes keep one together."""
    try:
        items = next(csv.reader([told], strict=True), list[str]())
    except csv.Error as error:
        raise BadCommand(f"--grid {text}: {error}") from error
    if not items or "" in items:
        raise BadCommand(f"--grid {text} has an empty value")
    return items


def _values(text: str, item: str) -> Sequence[str]:
    span = _RANGE.fullmatch(item)
    if span is None:
        if _LIKE_A_RANGE.fullmatch(item):
            raise BadCommand(
                f"--grid {text}: {item} is no range of whole numbers; list the values, with commas between"
            )
        return [item]
    first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
    if step == 0:
        raise BadCommand(f"--grid {text}: a step of 0 leads nowhere")
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    if len(numbers) > MOST:
        raise BadCommand(
            f"--grid {text} has {len(numbers):,} values; one command queues at most {MOST:,} runs"
        )
    return [str(number) for number in numbers]


def read_array(text: str) -> tuple[list[int], int | None]:
    """(indices, how many at once) of `1-100%4`, `1,3,5-7`, `0-90:10`. Raises BadCommand."""
    told, percent, most = text.partition("%")
    if percent and not (most.isdecimal() and 0 < int(most) <= MOST):
        raise BadCommand(f"--array {text}: after % stands how many may run at once, from 1")
    indices: dict[int, None] = {}
    for item in told.split(","):
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
    """A run's values a row: of a CSV file with a header, or one JSON object a line. Numbers stay as they are written.
    Raises BadCommand, naming the line."""
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
        raise BadCommand(f"--params {path} holds no row")
    return rows


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
            found = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise BadCommand(f"{where} is no JSON object: {error}") from error
        names = set(found) if names is None else names
        if set(found) != names:
            odd = ", ".join(sorted(set(found) ^ names))
            raise BadCommand(f"{where} does not have the keys of the first one: {odd}")
        row = {key: _json_text(bytes(value)) for key, value in found.items()}
        if any("\0" in value for value in row.values()):
            raise BadCommand(f"{where} holds a NUL, which no argument can")
        yield row


def _json_text(raw: bytes) -> str:
    """A string's content; of anything else the text that stands there: 1e-3 stays 1e-3."""
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()
