"""A sample of the kill sweeps, another one each day; with `-m long` every fault of every scene, which takes hours.

`SWEEP_SEED=N pytest tests/faults/test_sweep.py` repeats the sample of a day: N is in the output of what failed.
`python -m tests.faults.sweep` plays the same faults without pytest.
"""

import os
import random
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.sweep import faults
from tests.faults.sweep.scenes import SCENES, Scene, all_points, strike

SEED = int(os.environ.get("SWEEP_SEED") or datetime.now(UTC).strftime("%Y%m%d"))
SAMPLE = 2
PARTS = 16
"""Of a whole scene, so that several processes share it."""
TRIES = 5
"""Some calls come more or less often from one time to the next, so a fault at the last of them may not come to pass."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_fault_at_any_system_call_breaks_no_promise(scene: Scene, tmp_path: Path) -> None:
    """SIGKILL or one of the errors; then the ten invariants of `tests.support.promises`. Every other day at the calls
    that touch our files: what is opened, read and looked at."""
    why = faults.unusable()
    if why is not None:
        pytest.skip(why)
    print(f"seed {SEED}; SWEEP_SEED={SEED} repeats it")
    chance = random.Random(SEED)
    kinds = [bool(SEED % 2)]
    points = all_points(scene, tmp_path, kinds)
    kills = [one for one in points if one.what == faults.KILL]
    errors = [one for one in points if one.what != faults.KILL]
    for some in (kills, errors):
        chance.shuffle(some)
    came = 0
    for number in range(TRIES):
        chosen = (errors or kills) if number % SAMPLE == 1 else (kills or errors)
        point = chosen[number % len(chosen)]
        struck, found = strike(scene, point, tmp_path / str(number))
        match = shlex.join(["--scene", scene.name, "--match", str(point)])
        assert found == [], f"seed {SEED}; again: python -m tests.faults.sweep {match}"
        came += struck
        if came == SAMPLE:
            return
    assert came, f"none of them came to pass; seed {SEED}"


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_no_fault_of_a_whole_scene_breaks_a_promise(scene: Scene, part: int, tmp_path: Path) -> None:
    why = faults.unusable()
    if why is not None:
        pytest.skip(why)
    wrong: list[str] = []
    points = all_points(scene, tmp_path / "counted")[part::PARTS]
    came = 0
    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        struck, found = strike(scene, point, folder)
        came += struck
        wrong += found
        if not found:
            shutil.rmtree(folder)
    print(f"{scene.name}: {len(points)} faults, {came} came to pass")
    assert came
    assert not wrong, "\n".join(wrong)
