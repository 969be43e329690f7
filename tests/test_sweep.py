"""A sample of the kill sweeps. All: `python -m tests.sweep`; another sample: `python -m tests.sweep --points 9`."""

import random
from pathlib import Path

import pytest

from tests.sweep import faults
from tests.sweep.scenes import SCENES, Scene, all_points, strike

SEED = 20261121
SAMPLE = 2

pytestmark = pytest.mark.long


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_fault_at_any_system_call_breaks_no_promise(scene: Scene, tmp_path: Path) -> None:
    """SIGKILL, ENOSPC, EIO, EMFILE or EAGAIN; then the ten invariants of `tests.books`."""
    why = faults.unusable()
    if why is not None:
        pytest.skip(why)
    points = all_points(scene, tmp_path, kinds=(False,))
    kills = [one for one in points if one.what == faults.KILL]
    chance = random.Random(SEED)
    chosen = [*chance.sample(kills, SAMPLE), *chance.sample(points, 1)]
    struck = [strike(scene, point, tmp_path / str(number)) for number, point in enumerate(chosen)]
    assert [fault for _, found in struck for fault in found] == []
    assert any(came for came, _ in struck), f"none of {[str(one) for one in chosen]} came to pass"
