"""Finds the counters in a script's output: `Epoch 3/10`, `step=40/100`, a progress bar, JSON with a step and a total.

Pure, from text to counters. A label tells what is counted: "epoch" and "step" are the training's, as far as the words
before them say; "keras" is the bar that Keras draws of an epoch. All others are bars, brackets and words of which
nobody knows whether they count the training, a validation or the loading of data.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import msgspec

MAX_LINE: Final = 4096
NEAR: Final = 200
"""How many characters before and behind a counter tell what it counts."""
STEP: Final = "step"
EPOCH: Final = "epoch"
KERAS: Final = "keras"
ASIDE: Final = "aside"
"""Counts something beside the training, by the words before it."""
_STEPS: Final = re.compile(r"(?:global_|train_|training_)?(?:step|iter|iteration|update)s?|it")
_EPOCHS: Final = ("epoch", "epochs")
_NO_COUNTER: Final = ("acc", "accuracy", "correct")
_TOTAL_STEPS: Final = ("total_steps", "total", "max_steps")
_TOTAL_EPOCHS: Final = ("epochs", "total_epochs")

_PAIR = r"(?P<number>\d{1,12})\s?(?:/| of )\s?(?P<total>\d{1,12})(?![\d/.])"
_LABELLED = re.compile(rf"(?<![\w/.])(?P<label>[A-Za-z_]+)\s{{0,3}}[:=#]?\s{{0,3}}[\[(]?\s{{0,3}}{_PAIR}")
_BRACKETS = re.compile(rf"\[\s{{0,6}}{_PAIR}[\s,\]]")
_BAR = re.compile(rf"(?<!\d)\d{{1,3}}%\|[^|]{{0,400}}\|\s{{0,6}}{_PAIR}\s?\[")
_KERAS = re.compile(rf"\s{{0,12}}{_PAIR}\s(?:\[|━|- \d)")
_LAST_WORD = re.compile(r"[A-Za-z_]+$")
_EPOCH_ALONE = re.compile(
    r"\bepochs?['\"]?\s{0,3}[:=#]?\s{0,12}[\[(]?\s?(\d{1,9})(?![\d%]|\s?/|\s?of\b)", re.IGNORECASE
)
_ASIDE = re.compile(
    r"val|eval|test|dev\b|infer|predict|sampl|generat|warm|burn|sanity|calib|profil|load|data|token|map\b|fold",
    re.IGNORECASE,
)
_MEASURED = re.compile(
    r"(?:loss|acc\w*|error|mse|ppl|reward)['\"]?\W{1,4}\d|\b(?:done|finished|completed)\b", re.IGNORECASE
)
"""What a line about a whole epoch says once the epoch is over, and one about its beginning does not."""
_WITHIN = re.compile(r"\b(?:batch|step|iter|iteration|it)\b['\"]?\W{0,3}\d", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


@dataclass(frozen=True)
class BoundedCounter:
    """One look at a counter. `line`: where it stood. `measured`: a result stands behind it."""

    line: int
    label: str
    number: int
    total: int
    measured: bool = False

    @property
    def is_full(self) -> bool:
        return self.number == self.total


def lines_of(text: bytes) -> list[str]:
    """Return what was to be read as a line at some time: a carriage return begins one. Without colours."""
    plain = _COLOUR.sub("", text.decode(errors="replace"))
    return [line[:MAX_LINE] for line in re.split(r"[\r\n\x08]+", plain) if line.strip()]


def counters_in(lines: Sequence[str]) -> list[BoundedCounter]:
    """Return all counters, in their order."""
    return [counter for at, line in enumerate(lines) for counter in _in_line(at, line)]


def epochs_alone(lines: Sequence[str]) -> set[int]:
    """Return the epochs that are named without their total. What counts up beside them may begin again with each."""
    return {int(number) for line in lines for number in _EPOCH_ALONE.findall(line)}


def _in_line(at: int, line: str) -> Iterator[BoundedCounter]:
    if line.lstrip().startswith("{") and (values := _json(line)) is not None:
        yield from _announced(at, values, line)
        return
    taken: set[int] = set()
    for pattern in (_LABELLED, _BAR, _KERAS, _BRACKETS):
        for match in [_KERAS.match(line)] if pattern is _KERAS else pattern.finditer(line):
            if match is None or match.start("number") in taken:
                continue
            taken.add(match.start("number"))
            number, total = int(match["number"]), int(match["total"])
            label = _label(pattern, match, line)
            if label is not None and total:
                behind = line[match.end() : match.end() + NEAR]
                measured = _is_measured(behind, line[max(match.start() - NEAR, 0) : match.start()])
                yield BoundedCounter(at, label, number, total, measured)


def _label(pattern: re.Pattern[str], match: re.Match[str], line: str) -> str | None:
    """Return what is counted; None for what is no counter. The words before it tell."""
    if pattern is _KERAS:
        return KERAS
    before = line[max(match.start() - NEAR, 0) : match.start()].rstrip(" :")
    if _ASIDE.search(before):
        return ASIDE
    if pattern is _BRACKETS:
        return "brackets"
    # A bar behind `Epoch 3:` counts what is in that epoch.
    word = match["label"] if pattern is _LABELLED else _LAST_WORD.search(before)
    word = (word if isinstance(word, str) else word[0] if word else "").lower()
    if _STEPS.fullmatch(word) or (word in _EPOCHS and pattern is _BAR):
        return STEP  # a bar counts what is done
    if word in _EPOCHS:
        return EPOCH
    return "bar" if pattern is _BAR else None if word in _NO_COUNTER else word


def _json(line: str) -> dict[str, object] | None:
    try:
        decoded: object = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", decoded) if isinstance(decoded, dict) else None


def _announced(at: int, values: dict[str, object], line: str) -> Iterator[BoundedCounter]:
    """Yield the counters of a line of JSON, whose metrics may hold the totals: `backprop.log(step=3, total=9)`."""
    metrics = values.get("metrics")
    known = values | (cast("dict[str, object]", metrics) if isinstance(metrics, dict) else {})
    measured = _is_measured(line)
    for label, totals in ((STEP, _TOTAL_STEPS), (EPOCH, _TOTAL_EPOCHS)):
        number = _whole(known.get(label))
        total = next((found for name in totals if (found := _whole(known.get(name)))), None)
        if number is not None and total is not None:
            yield BoundedCounter(at, label, number, total, measured)


def _is_measured(behind: str, before: str = "") -> bool:
    return _MEASURED.search(behind) is not None and not any(map(_WITHIN.search, (behind, before)))


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
        return None
    return int(value)
