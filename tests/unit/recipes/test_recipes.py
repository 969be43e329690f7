"""Recipes: what is recognised in a command and its script's text, where it saves and how it is resumed. Nothing is run
but the installed command; the layouts are those that the frameworks leave behind."""

import os
from pathlib import Path

import pytest

from backprop.scheduler.recipes.command_line import ENTRIES
from backprop.scheduler.recipes.registry import BY_NAME, RECIPES
from backprop.scheduler.spec import Plan
from backprop.worker.checkpoints.resume import command_line
from tests.support import training_scripts as trainers
from tests.support.planning import matching, planned, spec
from tests.support.recipe_cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_what_is_recognised_where_it_saves_and_how_it_goes_on(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for each in (*case.found, *case.left):
        path = tmp_path / each
        path.parent.mkdir(parents=True, exist_ok=True)
        if not any(other.startswith(f"{each}/") for other in case.left):
            path.write_text("1")
    plan = planned(tmp_path, case.text, case.words)
    assert plan.recipe == case.recipe, plan
    found = {os.path.relpath(path, tmp_path) for each in plan.globs for path in matching(each)}
    assert found == set(case.found), plan
    told = command_line(spec(tmp_path, case.words, plan), "CHECKPOINT")
    assert " ".join(told[1:]) == case.resumed
    assert command_line(spec(tmp_path, case.words, plan), None) == tuple(case.words.split()), (
        "the first start"
    )
    for key, value in case.extra.items():
        assert getattr(plan, key) == value, (key, plan)


def test_every_recipe_has_a_case() -> None:
    assert {case.recipe for case in CASES.values()} == set(BY_NAME)
    assert {entry for recipe in RECIPES for entry in recipe.entries} == ENTRIES


@pytest.mark.parametrize(
    ("recipe", "name", "step"),
    [
        ("huggingface", "checkpoint-500", "500"),
        ("lightning", "epoch=3-step=1200.ckpt", "1200"),
        ("lightning", "epoch=3-step=1200-v1.ckpt", "1200"),
        ("lightning", "last.ckpt", None),
        ("mmengine", "iter_4000.pth", "4000"),
        ("detectron2", "model_0004999.pth", "0004999"),
        ("detectron2", "model_final.pth", None),
        ("fairseq", "checkpoint_3_900.pt", "900"),
        ("fairseq", "checkpoint_last.pt", None),
        ("composer", "ep1-ba500-rank0.pt", "500"),
        ("timm", "checkpoint-12.pth.tar", "12"),
        ("accelerate", "step_40", "40"),
        ("ultralytics", "epoch7.pt", "7"),
    ],
)
def test_the_step_in_a_name(recipe: str, name: str, step: str | None) -> None:
    import re

    pattern = BY_NAME[recipe].step
    assert pattern is not None
    found = re.search(pattern, name)
    assert (found[1] if found else None) == step


def test_the_step_in_a_name_that_the_script_makes_up(tmp_path: Path) -> None:
    import re

    pattern = planned(tmp_path, trainers.EPOCH_FILES).step_pattern
    assert pattern is not None
    found = re.search(pattern, "runs/a/epoch_012.pt")
    assert found is not None
    assert int(found[1]) == 12
    assert re.search(pattern, "runs/a/epoch_best.pt") is None


@pytest.mark.parametrize(
    "text",
    [
        trainers.TOKENIZER_ONLY,
        "# from transformers import Trainer\n# Trainer().train()\n",
        '"""from lightning import Trainer\ntrainer.fit()"""\nimport torch\n',
        "text = 'import torch; parser.add_argument(\"--resume\")'\n",
        "import torch\nimport argparse\nargparse.ArgumentParser().add_argument('--resume-id')\n",
        "import timm, torch\nmodel = timm.create_model('resnet18')\nmodel.train()\n",
        "import mmengine, torch\ncfg = mmengine.Config()\nmodel.train()\n",
        "from accelerate import Accelerator\nAccelerator().prepare(model)\n",
        "import torch\ntorch.save(model.state_dict(), 'best.pt')\nmodel.load_state_dict(torch.load('best.pt'))\n",
        "import torch\ntorch.save({'a': 1}, 'best.pt')\nx = torch.load('best.pt')\n",
        "print('hello')\n",
        "",
    ],
)
def test_what_only_looks_like_a_trainer_has_no_recipe(text: str, tmp_path: Path) -> None:
    assert planned(tmp_path, text) == Plan()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "yolo predict model=a.pt"),
        ("", "fairseq-generate data"),
        (trainers.LIGHTNING_CLI, "python train.py test"),
    ],
)
def test_a_framework_that_is_not_training_has_no_recipe(text: str, words: str, tmp_path: Path) -> None:
    assert planned(tmp_path, text, words) == Plan()


@pytest.mark.parametrize(
    "line",
    [
        "import backprop",
        "from backprop.integrations import x",
        "print(json.dumps({'event': 'checkpoint_saved'}))",
    ],
)
def test_a_script_that_speaks_for_itself_keeps_to_it(line: str, tmp_path: Path) -> None:
    text = f"{line}\n{trainers.IMAGENET}"
    assert planned(tmp_path, text) == Plan(speaks="events")
    assert planned(tmp_path, text, recipe_override="pytorch").resume_words == ("--resume", "{checkpoint}")
    assert planned(tmp_path, trainers.IMAGENET.replace("torch.save", "backprop_loss")).recipe == "pytorch"


def test_one_that_reads_our_variable_is_watched_and_not_told_twice(tmp_path: Path) -> None:
    text = trainers.TRL_SFT.replace(
        "train()", "train(resume_from_checkpoint=os.environ.get('BACKPROP_RESUME_FROM'))"
    )
    plan = planned(tmp_path, text)
    assert (plan.recipe, plan.resumes, plan.resume_words) == ("huggingface", "unknown", ())
    assert plan.globs == (f"{tmp_path}/sft-out/checkpoint-*",)
    assert command_line(spec(tmp_path, "python train.py", plan), "CHECKPOINT") == ("python", "train.py")
