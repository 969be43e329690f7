"""What a script saves to a draft and renames is known by its last name."""

from pathlib import Path

import pytest

from backprop.scheduler.recipes.plan import plan_for
from tests.support import training_scripts as trainers
from tests.support.planning import READER

DRAFTS = {
    "a name and a suffix": (
        '    torch.save(state, PATH + ".tmp")\n    os.replace(PATH + ".tmp", PATH)\n',
        "state/last.pt",
    ),
    "a variable": (
        '    draft = os.path.join("state", "tmp.pth")\n    torch.save(state, draft)\n    os.rename(draft, PATH)\n',
        "state/last.pt",
    ),
    "pathlib": (
        '    torch.save(state, Path("state") / "draft.pt")\n    (Path("state") / "draft.pt").replace(PATH)\n',
        "state/last.pt",
    ),
    "shutil": (
        '    torch.save(state, f=f"{PATH}.new")\n    shutil.move(f"{PATH}.new", PATH)\n',
        "state/last.pt",
    ),
}


@pytest.mark.parametrize("how", DRAFTS)
def test_a_draft_that_is_renamed_is_known_by_its_last_name(tmp_path: Path, how: str) -> None:
    """So that a script which loads what it saves, and saves with care, is known to go on by itself."""
    save, path = DRAFTS[how]
    text = trainers.LOADS_ITSELF.replace(
        "import os, torch", "import os, shutil, torch\nfrom pathlib import Path"
    )
    text = text[: text.index("    torch.save(")].replace('["optimizer"])', '["optimizer"])', 1)
    (tmp_path / "train.py").write_text(text + '    state = {"optimizer": optimizer.state_dict()}\n' + save)
    plan = plan_for(["python", "train.py"], "python", tmp_path / "train.py", tmp_path, READER)
    assert plan.recipe == "pytorch"
    assert (plan.resumes, plan.globs) == ("rerun", (f"{tmp_path}/{path}",))


def test_numbered_drafts_keep_the_step_of_their_last_name(tmp_path: Path) -> None:
    save = """    torch.save(state, os.path.join("out", "draft"))
    os.replace(os.path.join("out", "draft"), os.path.join("out", f"step_{step}.pt"))
"""
    text = trainers.IMAGENET + "for step in range(9):\n    import os\n    state = {}\n" + save
    text = text.replace("torch.save(state, filename)", "pass")
    (tmp_path / "train.py").write_text(text)
    plan = plan_for(["python", "train.py"], "python", tmp_path / "train.py", tmp_path, READER)
    assert plan.globs == (f"{tmp_path}/out/step_*.pt",)
    assert plan.step_pattern is not None
    assert "step_" in plan.step_pattern
