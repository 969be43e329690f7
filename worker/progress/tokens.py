"""Reads the named numbers of one line: `loss: 0.12`, `step 100 | lr 1e-4`, `{'loss': 1.2}`, `Epoch 3/10`.

A line is cut into words, numbers and marks once, so it takes time in proportion to its length. Only a line with a
counter or a known measure says anything: settings that a script prints (`batch_size: 32`) are no progress.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from backprop.worker.progress import vocabulary

MAX_TOKENS: Final = 256
MAX_NAME: Final = 64
MAX_COUNT: Final = 10**15

_TOKEN: Final = re.compile(
    r"(?P<word>[^\W\d][\w./@]*(?:-\w[\w./@]*)*)"
    r"|(?P<number>\d{1,3}(?:,\d{3}){1,4}(?![\d.,])|[+-]?(?:\d{1,32}(?:\.\d{1,32})?|\.\d{1,32})(?:[eE][+-]?\d{1,4})?)(?P<unit>%?[\w.]?)"
    r"|(?P<mark>[^\w\s'\"])"
)
_SWITCH: Final = re.compile(r"[:=] ?(?:True|False|None|true|false|null)\b")
SWITCHES: Final = 3
"""So many make a line a list of settings: `batch=16, iou=0.7, amp=True, …` is no 16th batch."""
_WRAPPERS: Final = {
    "tensor",
    "array",
    "np.float64",
    "np.float32",
    "np.int64",
    "float",
    "device_array",
    "Array",
}


class Counter(msgspec.Struct, frozen=True):
    """A place in the training, of `total` if that is known.

    `unit`: "global" (a step of the whole training, by its name), "step", "epoch", or "bar", which may begin again with
    each epoch. Of what is beside the place: "batch" (within an epoch), "other" (nobody knows), "aside" (no training).
    `key`: tells it from other counters of the segment.
    """

    unit: str
    key: str
    value: int
    total: int | None = None


class LineReading(msgspec.Struct):
    """What one line says. `held_out`: it speaks of data that nothing is learned from. `beside`: what else it counts."""

    counters: list[Counter] = []
    beside: list[Counter] = []
    values: dict[str, float] = {}
    held_out: bool = False
    proven: bool = False

    def all_aside(self) -> list[Counter]:
        """Return all it counts, as what no training is."""
        return [msgspec.structs.replace(counter, unit="aside") for counter in (*self.counters, *self.beside)]


class _Token(NamedTuple):
    kind: str
    text: str
    unit: str
    begin: int
    end: int


def read(text: str) -> LineReading:
    """Return the counters and named numbers of a line. Empty where nothing shows that it speaks of progress."""
    if len(_SWITCH.findall(text)) >= SWITCHES:
        return LineReading()
    reading = LineReading()
    scan = _Scan(list(_tokens(text)), reading)
    scan.run()
    if vocabulary.ASIDE.match(text):
        return LineReading(beside=reading.all_aside())
    if not reading.counters and not reading.proven:
        return LineReading(held_out=reading.held_out, beside=reading.beside)
    return reading


def count(text: str) -> int | None:
    """Return a whole number that may be a step; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _tokens(text: str) -> Iterator[_Token]:
    for match in islice(_TOKEN.finditer(text), MAX_TOKENS):
        word, number, unit, mark = match.groups()
        begin, end = match.span()
        if word is not None:
            yield _Token("word", word, "", begin, end)
        elif number is not None:
            yield _Token("number", number.replace(",", ""), unit, begin, end)
        else:
            yield _Token("mark", mark, "", begin, end)


class _Scan:
    """Goes over a line's tokens once. `_words`: those that stand right before the present one, which may be a name."""

    def __init__(self, tokens: Sequence[_Token], reading: LineReading) -> None:
        self._tokens, self._reading = tokens, reading
        self._words: list[str] = []
        self._mark = ""
        self._first = True
        self._sized: Counter | None = None
        """A batch that may be the size of all: `batch=16` stands among settings too."""

    def run(self) -> None:
        self._go_over()
        if self._sized is not None and (self._reading.proven or self._reading.counters):
            self._add(self._sized)

    def _go_over(self) -> None:
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            if token.kind == "word":
                at = self._word(token, at)
            elif token.kind == "number":
                at = self._number(token, at)
            elif token.text == "(" and self._text(at + 2) == ")" and self._text(at + 3) in (":", "="):
                at += 3  # loss (train): 0.3
            else:
                self._punctuation(token.text)
                at += 1

    def _word(self, token: _Token, at: int) -> int:
        if token.text in _WRAPPERS and self._text(at + 1) == "(" and self._mark in (":", "="):
            return at + 2
        if self._mark:
            self._words.clear()
            self._mark = ""
        self._words.append(token.text)
        if len(self._words) == 1 and vocabulary.is_held_out(token.text):
            alone = self._text(at + 1) in (":", "|", "]", ")", "", "-", ",") and not self._is_value(at + 2)
            set_of = self._text(at + 1) in ("set", "Set") or self._first
            self._reading.held_out = self._reading.held_out or alone or (set_of and not self._names_value(at))
        elif token.text.lower() in ("train", "training") and self._text(at + 1) in (":", "|", "]"):
            self._reading.held_out = False
        self._first = False
        if (
            token.text.lower() in vocabulary.COUNTERS
            and self._text(at + 1) == "("
            and self._text(at + 3) == ")"
        ):
            # MMEngine: Epoch(val) [1][79/79]
            self._reading.held_out = self._reading.held_out or vocabulary.is_held_out(self._text(at + 2))
            return at + 4
        return at + 1

    def _is_value(self, at: int) -> bool:
        return at < len(self._tokens) and self._tokens[at].kind == "number"

    def _names_value(self, at: int) -> bool:
        """Whether a word begins a name, as in `val loss 0.3`: the name itself tells then."""
        ahead = [self._text(at + 1), self._text(at + 2)]
        return any(vocabulary.is_measure(word) for word in ahead)

    def _number(self, token: _Token, at: int) -> int:
        words, mark = self._words, self._mark
        self._words, self._mark = [], ""
        self._first = False
        total_at = at + 2 if self._text(at + 1) in ("/", "of") and self._is_value(at + 2) else None
        total = count(self._tokens[total_at].text) if total_at is not None else None
        name = words[-1].lower() if words else ""
        if name == "train" and mark == ":" and self._text(at + 1) == "[":
            name = "epoch"  # timm: Train: 0 [  50/1251 (  4%)]
        elif total is not None and name.removesuffix("s") in vocabulary.COUNTERS:
            name = name.removesuffix("s")
        if name in vocabulary.COUNTERS and self._counts(words):
            self._take_counter(name, mark, token, total)
        else:
            self._take_beside(name, token, total, at)
            if words and total_at is None and token.unit in ("", "%", "."):
                self._take_value(words, mark, token)
        return self._past_unit(total_at if total_at is not None else at)

    def _past_unit(self, at: int) -> int:
        """Pass over what clings to a number: `12ms`, `320/s`."""
        end, at = self._tokens[at].end, at + 1
        if self._text(at) == "/" and self._tokens[at].begin == end:
            end += 1
            at += 1
        while at < len(self._tokens) and self._tokens[at].kind == "word" and self._tokens[at].begin == end:
            end = self._tokens[at].end
            at += 1
        return at

    def _counts(self, words: list[str]) -> bool:
        return all(word.lower() in vocabulary.BESIDE for word in words[:-1])

    def _take_counter(self, name: str, mark: str, token: _Token, total: int | None) -> None:
        value = count(token.text)
        if name == "epoch":
            number = float(token.text)
            if math.isfinite(number) and number >= 0 and token.unit in ("", "."):
                self._reading.values.setdefault("epoch", number)
                whole = int(number)
                self._add(Counter("epoch", "epoch", min(whole, MAX_COUNT), total))
            return
        if value is None or token.unit not in ("", "."):
            return
        if name in vocabulary.BATCHES:
            counter = Counter("bar", "batch", value, total)
            if total is None and mark in (":", "="):
                self._sized = self._sized or counter
            else:
                self._add(counter)
        elif name in vocabulary.GLOBAL:
            self._add(Counter("global", name, value, total))
        else:
            self._add(Counter("step", name, value, total))

    def _take_beside(self, name: str, token: _Token, total: int | None, at: int) -> None:
        """Note a counter of nobody knows what. A fraction of 1/2/2026 is none, and neither are 95/100 right answers."""
        value = count(token.text)
        named = bool(name) or self._text(at - 1) in ("[", "(")
        counts = name in vocabulary.COUNTERS or (
            total is not None and named and not vocabulary.is_measure(name) and name != "correct"
        )
        if counts and value is not None and (total is None or value <= total) and self._text(at + 3) != "/":
            self._reading.beside.append(Counter("other", name, value, total))

    def _add(self, counter: Counter) -> None:
        if all(known.key != counter.key for known in self._reading.counters):
            self._reading.counters.append(counter)

    def _take_value(self, words: list[str], mark: str, token: _Token) -> None:
        named = mark in (":", "=")
        spaced = mark == "" and (vocabulary.is_measure(words[-1]) or words[-1].lower() in vocabulary.SPACED)
        if not named and not spaced:
            return
        name = _named(words[-4:] if named else words[-2:])
        if not name or len(name) > MAX_NAME or vocabulary.is_noise(name) or vocabulary.is_noise(words[-1]):
            return
        if self._reading.held_out and not any(
            vocabulary.is_held_out(part) for part in re.split(r"[_/ .-]", name)
        ):
            name = f"val_{name}"
        value = float(token.text)
        if math.isfinite(value) and len(self._reading.values) < MAX_NAME:
            self._reading.values.setdefault(name, value)
            self._reading.proven = self._reading.proven or vocabulary.is_measure(name)

    def _punctuation(self, mark: str) -> None:
        if mark in (":", "=", "#") and self._words:
            self._mark = mark
        elif (
            mark in "([" and self._words and not self._mark and self._words[-1].lower() in vocabulary.COUNTERS
        ):
            self._mark = "["
        elif mark in "[(" and self._mark:
            # Epoch: [0][  10/5005]
            pass
        else:
            self._words, self._mark = [], ""

    def _text(self, at: int) -> str:
        return self._tokens[at].text if 0 <= at < len(self._tokens) else ""


def _named(words: Sequence[str]) -> str:
    """Return the words of a name as one: `train loss` is train_loss, `Average loss` is loss."""
    kept = [word.strip(".-/").lower() for word in words]
    while len(kept) > 1 and kept[0] in vocabulary.PLAIN and not (kept[0] == "total" and len(kept) == 2):
        kept.pop(0)
    return "_".join(word for word in kept if word)
