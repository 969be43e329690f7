"""Holds the user's own patterns, `--metric-regex NAME=REGEX`: checked when a run is queued, matched in bounded time."""

import contextlib
import math
import re
from collections.abc import Sequence
from typing import Final

from backprop.worker.progress.linear_regex import LinearRegex
from backprop.worker.progress.pattern_parser import BadPattern

MAX_RULES: Final = 16
MAX_PATTERN: Final = 200
MAX_TEXT: Final = 1024
"""Characters of a line that are looked at."""
_NAME: Final = re.compile(r"[^\W\d][\w./@-]{0,63}")
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,32}(?:\.\d{0,32})?|\.\d{1,32})(?:[eE][+-]?\d{1,4})?")


class MetricRule:
    """One pattern and the name of what it finds: `step`, `epoch`, `loss`, or a metric."""

    def __init__(self, rule: str) -> None:
        """Raise BadPattern, which says what is wrong."""
        self.name, equals, pattern = rule.partition("=")
        if not equals or not pattern:
            raise BadPattern("expected NAME=REGEX, e.g. 'val_acc=val acc: ([0-9.]+)'")
        if _NAME.fullmatch(self.name) is None:
            raise BadPattern(
                f"{self.name!r} is no name of a metric: a letter, then letters, digits and _ . / @ -"
            )
        if len(pattern) > MAX_PATTERN:
            raise BadPattern(f"it is longer than {MAX_PATTERN} characters")
        self._regex = LinearRegex(pattern)

    def find(self, text: str, max_tries: int) -> tuple[float | None, int]:
        """Return the number that its first group, or the whole pattern, matches in a line, and what that took of
        `max_tries` instructions. None where there is none."""
        found, tries = self._regex.search(text[:MAX_TEXT], max_tries)
        number = _NUMBER.fullmatch(found.strip()) if found is not None and len(found) <= 80 else None
        value = float(number[0]) if number is not None else math.nan
        return value if math.isfinite(value) else None, tries


def rules_of(texts: Sequence[str]) -> tuple[MetricRule, ...]:
    """Return the rules of a run. Raises BadPattern, also for more than `MAX_RULES`."""
    if len(texts) > MAX_RULES:
        raise BadPattern(f"{len(texts)} patterns, at most {MAX_RULES}")
    rules: list[MetricRule] = []
    for text in texts:
        try:
            rules.append(MetricRule(text))
        except BadPattern as error:
            raise BadPattern(f"{text!r}: {error}") from None
    return tuple(rules)


def usable_rules(texts: Sequence[str]) -> tuple[MetricRule, ...]:
    """Return those that are taken of the rules of a queued run: another version may have accepted more."""
    rules: list[MetricRule] = []
    for text in texts[:MAX_RULES]:
        with contextlib.suppress(BadPattern):
            rules.append(MetricRule(text))
    return tuple(rules)
