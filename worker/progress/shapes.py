"""Reads one line by its shape: a bar of tqdm or Keras, a row of a table, or words and numbers.

Tables have their names in a line above: YOLO's, fastai's, skorch's, and those with a name and a number in each row, as
Stable-Baselines3 prints them.
"""

import math
import re
from typing import Final

import msgspec

from backprop.worker.progress.tokens import Counter, LineReading, count, read
from backprop.worker.progress.vocabulary import is_held_out, is_measure, is_noise

_BAR: Final = re.compile(r"\d{1,3}%\|[^|]{0,400}\|\s{0,8}(\d{1,15})/(\d{1,15}) \[(.*)")
_BAR_OF_UNKNOWN_LENGTH: Final = re.compile(r"(?<!\d)(\d{1,15})it \[(.*)")
_KERAS: Final = re.compile(r"(\d{1,15})/(\d{1,15}|Unknown)\s{1,8}(?:[━╸\[]|- )")
_PLACE: Final = re.compile(
    r"[\[(]\s{0,8}(\d{1,15})\s{0,8}/\s{0,8}(\d{1,15})\s{0,8}[\])]|\[(\d{1,15})\](?=\s)"
)
_NOT_TRAINING: Final = re.compile(
    r"\b(?:map|filter|download|load|token|preproc|process|generat|sav|cach|scan|fetch|sanity|predict|infer|resolv|comput|build"
    r"|extract|upload|creat|sampl|flatten|group|packing|copy)",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[^\W\d]+")
_JSON_EVENT: Final = re.compile(r'\{[^{}]*"(?:event|step|loss)"\s{0,8}:')
_FIRST_COLUMNS: Final = {"epoch", "step", "iter", "iteration", "epochs"}
MAX_COLUMNS: Final = 64


class LineReader:
    """Reads lines one after the other: a row of a table is understood by its header."""

    def __init__(self) -> None:
        self._columns: tuple[str, ...] = ()
        self._keras_total: int | None = None

    def read(self, text: str) -> LineReading:
        """Return what a line says; empty for most. Raises nothing."""
        text, _, behind = text.partition('{"')
        if behind:
            # What is behind a bar is a line of its own. Events are for the reader of events.
            line = '{"' + behind
            return (
                self.read(text) if text.strip() else LineReading() if _JSON_EVENT.match(line) else read(line)
            )
        if "%|" in text and (bar := _BAR.search(text)) is not None:
            label = text[: bar.start()]
            row = LineReading() if self._is_header(label) else self._row(label)
            return row if row is not None else _bar(label, bar[1], bar[2], bar[3])
        if "it [" in text and (bar := _BAR_OF_UNKNOWN_LENGTH.search(text)) is not None:
            return _bar(text[: bar.start()], bar[1], None, bar[2])
        if text.startswith("|") and (row := _pair(text)) is not None:
            return row
        if (row := self._row(text)) is not None:
            return row
        if (keras := _KERAS.match(text)) is not None:
            return self._keras(text[keras.end() :], keras[1], keras[2])
        if self._is_header(text):
            return LineReading()
        reading = read(text)
        if any(counter.unit == "epoch" for counter in reading.counters):
            self._keras_total = None
        place = _PLACE.match(text)
        if place is not None and not reading.counters and reading.proven:
            value = count(place[1] or place[3])
            total = count(place[2]) if place[2] else None
            if value is not None and not reading.held_out:
                reading.counters.append(Counter("step", "[]", value, total))
        return reading

    def _keras(self, rest: str, value: str, total: str) -> LineReading:
        """A bar counts the batches of one epoch.

        One of another length is an evaluation's, whose loss has the same name.
        """
        batches = count(total)
        if self._keras_total is None:
            self._keras_total = batches
        beside = [Counter("batch", "keras", int(value), batches)]
        if batches != self._keras_total:
            return LineReading(held_out=True, beside=beside)
        return LineReading(values=read(rest).values, beside=beside)

    def _is_header(self, text: str) -> bool:
        names = text.split(maxsplit=MAX_COLUMNS)
        if not 3 <= len(names) <= MAX_COLUMNS or any(name[0].isdigit() for name in names):
            return False
        first = names[0].lower()
        if first not in _FIRST_COLUMNS and not (first == "class" and "mAP50" in text):
            return False
        if not all(re.fullmatch(r"[\w()./@:-]{1,64}", name) for name in names):
            return False
        # Box(P is YOLO's P.
        self._columns = tuple(re.sub(r"^\w*\(|[:()]+", "", name) for name in names)
        return True

    def _row(self, text: str) -> LineReading | None:
        """A row under the last header; None for any other line. Behind YOLO's rows stands a bar."""
        columns = self._columns
        if not columns:
            return None
        fields = text.rstrip(" :").split(maxsplit=MAX_COLUMNS + 1)
        if (
            len(fields) > len(columns)
            and fields[len(columns)][:-1].isdigit()
            and fields[len(columns)][-1] == "%"
        ):
            fields = fields[: len(columns)]
        if len(fields) != len(columns):
            return None
        is_summary = columns[0].lower() == "class"
        value, _, total = fields[0].partition("/")
        at = count(value)
        if (fields[0] != "all") if is_summary else at is None:
            return None
        reading = LineReading(proven=True, held_out=is_summary)
        for name, field in zip(columns[1:], fields[1:], strict=True):
            number = _number(field)
            if number is not None and not is_noise(name):
                reading.values[name] = number
        if at is not None:
            unit = "epoch" if columns[0].lower().startswith("epoch") else "step"
            reading.counters.append(Counter(unit, columns[0].lower(), at, count(total)))
        return reading


def _bar(label: str, value: str, total: str | None, rest: str) -> LineReading:
    """A bar of tqdm: its label may name the epoch, and what it shows of the training stands behind its times."""
    reading = read(f"{label.rstrip(' :')}, {rest}")
    if not reading.held_out and any(map(is_held_out, _WORD.findall(label))):
        reading.held_out = True
        reading.values = {
            name if "val" in name else f"val_{name}": value for name, value in reading.values.items()
        }
    at = count(value)
    if at is None:
        return reading
    words = " ".join(_WORD.findall(label)[:4])
    bar = Counter("bar", f"bar {words} {total}", at, count(total or ""))
    if _NOT_TRAINING.search(label) or "B/s" in rest or "examples/s" in rest:
        return LineReading(beside=LineReading([bar]).all_aside())
    if reading.counters or reading.held_out:
        reading.beside.append(msgspec.structs.replace(bar, unit="batch"))
    else:
        reading.counters.append(bar)
    return reading


def _pair(text: str) -> LineReading | None:
    """A row of a table with a name and a number."""
    cells = [cell.strip() for cell in text.strip("| ").split("|", 3)]
    if len(cells) != 2 or not re.fullmatch(r"[^\W\d][\w/. -]{0,63}", cells[0]):
        return None
    name, number = cells[0].lower(), _number(cells[1])
    if number is None:
        return None
    if name == "total_timesteps" and number.is_integer() and number >= 0:
        return LineReading([Counter("global", name, int(number))], proven=True)
    return LineReading(values={} if is_noise(name) else {name: number}, proven=is_measure(name))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text and len(text) <= 64 else None
