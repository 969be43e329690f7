"""The breaker of starts: when it opens, for how long, what closes it."""

from backprop.worker.clock import Clock
from backprop.worker.executor.breaker import LONGEST_PAUSE_S, PAUSE_S, TRIAL_S, Breaker

ONE, TWO = ("aaaa", 1), ("bbbb", 1)


class Hands(Clock):
    """A clock that is moved by hand."""

    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


def tries(breaker: Breaker, clock: Hands, count: int) -> list[float]:
    """Let that many tries fail, each as soon as it may be; return how long each had to be waited for."""
    waited: list[float] = []
    for _ in range(count):
        since_s = clock.now_s
        while not breaker.may_try(is_ready=False):
            clock.now_s += 0.5
        waited.append(clock.now_s - since_s)
        breaker.try_with(ONE)
        breaker.failed("no")
    return waited


def test_it_waits_twice_as_long_each_time_up_to_a_minute() -> None:
    clock = Hands()
    breaker = Breaker(clock)
    assert breaker.why is None
    breaker.failed("no process")
    assert breaker.why == "no process"
    assert tries(breaker, clock, 9) == [
        PAUSE_S,
        2,
        4,
        8,
        16,
        32,
        LONGEST_PAUSE_S,
        LONGEST_PAUSE_S,
        LONGEST_PAUSE_S,
    ]
    breaker.try_with(TWO)
    breaker.began(TWO)
    assert breaker.why is None
    breaker.failed("again")
    assert tries(breaker, clock, 1) == [PAUSE_S], "it begins anew"


def test_several_failures_at_once_are_one() -> None:
    clock = Hands()
    breaker = Breaker(clock)
    for _ in range(8):
        breaker.failed("no")
    assert tries(breaker, clock, 1) == [PAUSE_S]


def test_only_the_segment_that_is_tried_closes_it() -> None:
    clock = Hands()
    breaker = Breaker(clock)
    breaker.failed("no")
    breaker.began(ONE)
    assert breaker.why is not None, "that one began before"
    clock.now_s += PAUSE_S
    breaker.try_with(TWO)
    breaker.began(ONE)
    assert (breaker.why, breaker.may_try(is_ready=True)) == ("no", False), "one at a time"
    clock.now_s += TRIAL_S
    assert breaker.may_try(is_ready=False), "a try of which nothing more is heard is not waited for"


def test_a_supervisor_that_was_missing_closes_it_at_once() -> None:
    clock = Hands()
    breaker = Breaker(clock)
    breaker.failed("no interpreter", of_supervisor=True)
    assert not breaker.may_try(is_ready=False)
    assert breaker.may_try(is_ready=True)
    breaker.has_supervisor()
    assert breaker.why is None
    breaker.failed("no process")
    breaker.has_supervisor()
    assert breaker.why is not None, "a supervisor alone does not start the command"
