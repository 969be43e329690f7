"""A sample of the kill sweeps. All of them: `python -m tests.faults.sweep`; `--points N` takes another sample."""

import random
from pathlib import Path

import pytest

from tests.faults.sweep import faults
from tests.faults.sweep.scenes import SCENES, Scene, all_points, strike

SEED = 20261121
SAMPLE = 3
TRIES = 6
"""Some calls come more or less often from one time to the next, so a fault at the last of them may not come to pass."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_fault_at_any_system_call_breaks_no_promise(scene: Scene, tmp_path: Path) -> None:
    """SIGKILL, ENOSPC, EIO, EMFILE or EAGAIN; then the ten invariants of `tests.support.promises`."""
    why = faults.unusable()
    if why is not None:
        pytest.skip(why)
    points = all_points(scene, tmp_path, kinds=(False,))
    chance = random.Random(SEED)
    kills = chance.sample([one for one in points if one.what == faults.KILL], TRIES)
    errors = chance.sample([one for one in points if one.what != faults.KILL], TRIES)
    came = 0
    for number in range(TRIES):
        point = errors[number] if number % SAMPLE == 1 else kills[number]
        struck, found = strike(scene, point, tmp_path / str(number))
        assert found == []
        came += struck
        if came == SAMPLE:
            return
    assert came, "none of them came to pass"
