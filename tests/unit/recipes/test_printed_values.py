"""A value is typed one way and printed another: folders are watched under the name that the script gives them."""

import argparse
import os
from pathlib import Path
from typing import Any

import pytest

from backprop.cli.submit.source_reader import DiskReader
from backprop.scheduler.recipes.plan import plan_for

HEAD = """
import argparse, os
from pathlib import Path
import torch
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, default=1e-3)
p.add_argument("--seed", type=int, default=0)
p.add_argument("--tag")
p.add_argument("--resume", default="", help="path to a checkpoint to resume from")
a = p.parse_args()
"""
TAIL = """
step = torch.load(a.resume)["step"]
torch.save({"step": step, "model": 1, "optimizer": 2}, os.path.join(out, "checkpoint.pt"))
"""
FORMS = (
    'f"out/lr{a.lr}-s{a.seed}"',
    '"out/lr" + str(a.lr) + "-s" + str(a.seed)',
    'os.path.join("out", f"lr{a.lr}")',
    'str(Path("out") / f"lr_{a.lr}")',
    'f"out/lr{a.lr:g}-s{a.seed}"',
    'f"out/lr{a.lr:.0e}-s{a.seed}"',
    '"out/lr%s-s%d" % (a.lr, a.seed)',
    '"out/lr{}-s{}".format(a.lr, a.seed)',
    '"out/{lr:.4f}".format(lr=a.lr)',
    '"out/%(lr)s" % {"lr": a.lr}',
    'f"out/{a.seed:03d}"',
    'f"out/{a.tag}"',
)


def watched(folder: Path, text: str, *arguments: str) -> tuple[str, ...]:
    script = folder / "train.py"
    script.write_text(text)
    return plan_for(("python", "train.py", *arguments), "python", script, folder, DiskReader()).globs


@pytest.mark.parametrize("lr", ["1e-3", ".001", "0.10", "3e-4"])
def test_a_folder_is_watched_as_the_script_prints_it(tmp_path: Path, lr: str) -> None:
    """The eight usual ways and some more, by what Python itself makes of them."""
    values: dict[str, Any] = {
        "a": argparse.Namespace(lr=float(lr), seed=7, tag=lr),
        "os": os,
        "Path": Path,
    }
    for form in FORMS:
        globs = watched(tmp_path, f"{HEAD}out = {form}{TAIL}", "--lr", lr, "--seed", "07", "--tag", lr)
        assert globs == (f"{tmp_path}/{eval(form, values)}/checkpoint.pt",), form


@pytest.mark.parametrize(
    ("form", "given", "name"),
    [
        ('f"out/lr{a.lr}"', "1e-3", "lr*"),
        ('f"out/lr{a.lr}"', "0.5", "lr0.5"),
        ('f"out/lr{a.lr:g}"', "1e-3", "lr0.001"),
        ('f"out/lr{a.lr:{a.width}}"', "1e-3", "lr*"),
        ('f"out/lr{round(a.lr, 2)}"', "1e-3", "lr*"),
        ('"out/lr{0[0]}".format(a.lr)', "3", "lr*"),
    ],
)
def test_what_only_running_would_tell_is_left_open(tmp_path: Path, form: str, given: str, name: str) -> None:
    """The option of an unknown type may be a number or a text."""
    text = HEAD.replace('"--lr", type=float, default=1e-3', '"--other"').replace(
        "import torch", "import torch, cfg"
    )
    globs = watched(tmp_path, f"{text}out = {form}{TAIL}", f"--lr={given}")
    assert [Path(each).parent.name for each in globs] == [name]
