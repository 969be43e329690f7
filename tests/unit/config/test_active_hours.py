"""Active hours: windows of the week by the clock on the wall, over midnight, across daylight saving."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from time import localtime

import pytest

from backprop.scheduler.config import active_hours
from backprop.scheduler.governor import opening
from backprop.scheduler.governor.model import Rule

pytestmark = pytest.mark.usefixtures("berlin")


@pytest.fixture
def berlin() -> Iterator[None]:
    """The zone in POSIX words: no zone files are needed."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(fold=fold).timestamp()


def is_open(text: str, *windows: str, fold: int = 0) -> bool:
    return active_hours.is_open(active_hours.parse_all(windows), at(text, fold), localtime)


@pytest.mark.parametrize(
    ("windows", "when", "expected"),
    [
        # 2026-11-23 is a Monday.
        (["22:00-08:00"], "2026-11-23T22:00", True),
        (["22:00-08:00"], "2026-11-23T21:59:59", False),
        (["22:00-08:00"], "2026-11-24T07:59:59", True),
        (["22:00-08:00"], "2026-11-24T08:00", False),
        (["09:00-17:00"], "2026-11-23T12:00", True),
        (["Mon-Fri 19:00-08:00"], "2026-11-23T03:00", False),
        (["Mon-Fri 19:00-08:00"], "2026-11-28T03:00", True),
        (["Mon-Fri 19:00-08:00"], "2026-11-28T19:00", False),
        (["Mon-Fri 19:00-08:00", "Sat,Sun 00:00-24:00"], "2026-11-29T15:00", True),
        (["fri-mon 1:00-2:00"], "2026-11-22T01:30", True),
        (["fri-mon 1:00-2:00"], "2026-11-24T01:30", False),
        (["Sunday 20:00-04:00"], "2026-11-23T03:59", True),
        ([], "2026-11-23T12:00", True),
    ],
)
def test_whether_it_is_open(windows: list[str], when: str, expected: bool) -> None:
    assert is_open(when, *windows) is expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "22:00", "22-08", "25:00-08:00", "22:60-08:00", "24:01-08:00", "08:00-08:00", "24:00-08:00"),
        *("Mo 22:00-08:00", "Foo-Fri 22:00-08:00", "Mon- 22:00-08:00", "22:00-08:00 Mon", "2\u0662:00-08:00"),
    ],
)
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        active_hours.parse_all(["22:00-08:00", text])


@pytest.mark.parametrize(
    ("windows", "now", "then"),
    [
        (["22:00-08:00"], "2026-11-23T12:00:31", "2026-11-23T22:00"),
        (["22:00-08:00"], "2026-11-23T23:00", "2026-11-24T08:00"),
        (["Sat 10:00-11:00"], "2026-11-23T12:00", "2026-11-28T10:00"),
        (["Sat 10:00-11:00"], "2026-11-28T11:00", "2026-12-05T10:00"),
        # Two windows that meet are one.
        (["22:00-08:00", "08:00-09:00"], "2026-11-23T23:00", "2026-11-24T09:00"),
        # The night in which 02:00 becomes 03:00: the window begins with the first minute of it that there is.
        (["02:15-06:00"], "2026-03-29T00:00", "2026-03-29T03:00"),
        # The night in which 03:00 becomes 02:00 lasts an hour longer.
        (["22:00-08:00"], "2026-10-25T01:00", "2026-10-25T08:00"),
    ],
)
def test_when_it_changes(windows: list[str], now: str, then: str) -> None:
    assert active_hours.changes_at_s(active_hours.parse_all(windows), at(now)) == at(then)


def test_daylight_saving() -> None:
    assert not is_open("2026-03-29T03:15", "02:15-02:45"), "02:15 was skipped"
    assert active_hours.changes_at_s(active_hours.parse_all(["02:15-02:45"]), at("2026-03-29T00:00")) == at(
        "2026-03-30T02:15"
    )
    assert is_open("2026-10-25T02:20", "02:15-02:45", fold=0)
    assert is_open("2026-10-25T02:20", "02:15-02:45", fold=1), "02:15 came twice"
    assert at("2026-10-25T08:00") - at("2026-10-24T22:00") == 11 * 3600
    assert active_hours.changes_at_s(active_hours.parse_all(["22:00-08:00"]), at("2026-10-24T22:00")) == at(
        "2026-10-25T08:00"
    )


def test_what_never_changes() -> None:
    assert active_hours.changes_at_s(active_hours.parse_all(["00:00-24:00"]), at("2026-11-23T12:00")) is None
    assert active_hours.changes_at_s((), at("2026-11-23T12:00")) is None


def test_the_gate() -> None:
    noon = at("2026-11-23T12:00")
    assert opening.closed(None, (), noon) is None
    assert opening.closed(None, ("09:00-17:00",), noon) is None
    drained = opening.closed(("a new driver", noon), ("09:00-17:00",), noon)
    assert drained is not None
    assert (drained.rule, "a new driver" in drained.text) == (Rule.DRAINED, True)
    closed = opening.closed(None, ("22:00-08:00", "Sat 9:00-10:00"), noon)
    assert closed is not None
    assert closed.rule is Rule.HOURS
    assert closed.text == "outside activeHours (22:00-08:00; Sat 9:00-10:00), opens at 22:00"
    later = opening.closed(None, ("Sat 9:00-10:00",), noon)
    assert later is not None
    assert later.text.endswith("opens at Sat 09:00")
    assert opening.opens_words(active_hours.parse_all(["09:00-17:00"]), noon) == "closes at 17:00"
