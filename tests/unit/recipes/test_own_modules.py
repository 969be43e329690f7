"""What a script imports from its own folder counts where its own text does not say enough."""

from pathlib import Path, PurePath

from backprop.cli.submit.source_reader import DiskReader
from backprop.scheduler.recipes.own_modules import LIMIT_BYTES, MOST_MODULES, own_modules
from backprop.scheduler.recipes.plan import plan_for
from backprop.scheduler.spec import Plan

ENGINE = """\
import torch
from .options import parse
def main():
    a = parse()
    start = 0
    if a.resume:
        start = torch.load(a.resume)["epoch"] + 1
    for epoch in range(start, 9):
        torch.save({"epoch": epoch}, "out/ckpt.pt")
"""
OPTIONS = """\
import argparse
def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--resume", help="checkpoint to go on from")
    return p.parse_args()
"""


def planned(folder: Path, files: dict[str, str], words: str = "python train.py") -> Plan:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    argv = words.split()
    return plan_for(argv, argv[0], folder / "train.py", folder, DiskReader())


def test_a_trainer_in_a_module_of_its_own_is_recognised(tmp_path: Path) -> None:
    files = {"lib/engine.py": ENGINE, "lib/options.py": OPTIONS}
    for script in (
        "from lib.engine import main\nmain()\n",
        "import os, lib.engine as engine\nengine.main()\n",
        "from lib import (engine)\nengine.main()\n",
    ):
        plan = planned(tmp_path, files | {"train.py": script})
        assert (plan.recipe, plan.resume_words) == ("pytorch", ("--resume", "{checkpoint}"))
        assert plan.globs == (f"{tmp_path}/out/ckpt.pt",)
        assert plan.why.startswith("a module of train.py has import torch")
    plan = planned(tmp_path, {"lib/train.py": "from .engine import main\nmain()\n"}, "python -m lib.train")
    assert plan.resume_words == ("--resume", "{checkpoint}")


def test_options_in_a_module_complete_what_the_script_says(tmp_path: Path) -> None:
    script = "import torch\nfrom options import parse\na = parse()\ntorch.save(a, 'out/ckpt.pt')\n"
    assert planned(tmp_path, {"train.py": script}).recipe == "none"
    assert planned(tmp_path, {"options.py": OPTIONS}).resume_words == ("--resume", "{checkpoint}")


def test_a_module_may_speak_our_protocol(tmp_path: Path) -> None:
    files = {"train.py": "import engine\nengine.main()\n", "engine.py": f"import backprop\n{ENGINE}"}
    assert planned(tmp_path, files) == Plan(speaks="events")


def test_what_a_module_does_as_a_script_does_not_count(tmp_path: Path) -> None:
    engine = ENGINE.replace("from .options import parse", "import argparse")
    own = f"{engine}if __name__ == '__main__':\n    p.add_argument('--resume')\n"
    files = {"train.py": "import engine\nengine.main(None)\n", "engine.py": own}
    assert planned(tmp_path, files) == Plan()


def test_two_levels_and_no_more(tmp_path: Path) -> None:
    files = {
        "train.py": "import a\n",
        "a.py": "import b\n",
        "b.py": "import c\n",
        "c.py": f"{OPTIONS}{ENGINE}",
    }
    assert planned(tmp_path, files) == Plan()
    assert planned(tmp_path, files | {"a.py": "import c\n"}).recipe == "pytorch"


def test_there_is_an_end_to_what_is_read(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(MOST_MODULES + 9)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("import train\nfrom . import train\nx = 1\n")
    script, text = PurePath(tmp_path / "train.py"), f"import {', '.join(names)}\n".encode()
    roots = (PurePath(tmp_path),)
    assert len(own_modules(script, text, roots, DiskReader())) == MOST_MODULES
    for name in names[:3]:
        (tmp_path / f"{name}.py").write_text("#" * LIMIT_BYTES)
    assert sum(map(len, own_modules(script, text, roots, DiskReader()))) == LIMIT_BYTES
    assert own_modules(script, b"import os\nfrom .... import x\nimport \xff\n", roots, DiskReader()) == ()
