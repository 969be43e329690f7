"""A run that has waited long holds back those behind it, if it waits for amounts that our own runs take."""

import pytest

from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.model import Denial, Rule
from backprop.scheduler.governor.starvation import CLEARS_S, STARVING_S, Wait


def denials(*rules: Rule) -> list[Denial]:
    return [Denial(rule, None, None, "why") for rule in rules]


def test_only_what_runs_of_ours_take_counts() -> None:
    assert starvation.amounts(denials(Rule.VRAM, Rule.TEMPERATURE)) == {Rule.VRAM}
    assert not starvation.amounts(denials(Rule.TEMPERATURE, Rule.DISK, Rule.QUARANTINE, Rule.GPU_READABLE))
    assert starvation.amounts(denials(Rule.PARALLEL, Rule.RAM, Rule.LOAD)) == {
        Rule.PARALLEL,
        Rule.RAM,
        Rule.LOAD,
    }


@pytest.mark.parametrize(
    ("wait", "now_s", "expected"),
    [
        (Wait(frozenset({Rule.VRAM}), 100.0), 100 + STARVING_S - 1, False),
        (Wait(frozenset({Rule.VRAM}), 100.0), 100 + STARVING_S, True),
        (Wait(frozenset(), 100.0), 100 + 10 * STARVING_S, False),
        (Wait(frozenset({Rule.RAM}), 100.0, excused_s=5000.0), 100 + 2 * STARVING_S, False),
        (Wait(frozenset({Rule.RAM}), 100.0, excused_s=5000.0), 5000 + STARVING_S, True),
        (Wait(frozenset({Rule.RAM}), 9000.0, excused_s=5000.0), 5000 + STARVING_S, False),
    ],
)
def test_when_a_run_is_starving(wait: Wait, now_s: float, expected: bool) -> None:
    assert starvation.is_starving(wait, now_s) is expected


def test_holding_back_is_futile_once_nothing_of_ours_runs() -> None:
    assert not starvation.holding_back_is_futile(None)
    assert not starvation.holding_back_is_futile(CLEARS_S - 1)
    assert starvation.holding_back_is_futile(CLEARS_S)


def test_a_run_without_a_gpu_passes_one_that_waits_for_gpus_alone() -> None:
    for_vram, for_both = Wait(frozenset({Rule.VRAM}), 0.0), Wait(frozenset({Rule.VRAM, Rule.RAM}), 0.0)
    assert starvation.keeps_back(for_vram, gpus=1)
    assert not starvation.keeps_back(for_vram, gpus=0)
    assert starvation.keeps_back(for_both, gpus=0)
