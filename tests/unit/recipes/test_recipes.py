"""Recipes: what is recognised in a command and its script's text, where it saves and how it is resumed. Nothing is run
but the installed command; the layouts are those that the frameworks leave behind."""

import glob
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.cli.submit.source_reader import DiskReader
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.recipes.command_line import ENTRIES, options_in, read_command
from backprop.scheduler.recipes.declared_options import options_of
from backprop.scheduler.recipes.plan import plan_for
from backprop.scheduler.recipes.registry import BY_NAME, RECIPES
from backprop.scheduler.recipes.script_parser import parse
from backprop.scheduler.recipes.source_reader import READ_LIMIT_BYTES
from backprop.scheduler.recipes.syntax_tree import PARSE_LIMIT_BYTES
from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.checkpoints.resume import command_line
from tests.support import training_scripts as trainers
from tests.support.harness import ROOT
from tools.docs.recipes import page

READER = DiskReader()


@dataclass(frozen=True)
class Case:
    """`words`: the command, with train.py for the script. `left`: files that its trainer left behind; `found`: the
    checkpoints among them. `resumed`: the command on a resume from CHECKPOINT, from its second word on."""

    recipe: str
    text: str
    words: str
    found: tuple[str, ...]
    resumed: str
    left: tuple[str, ...] = ()
    extra: dict[str, object] = field(default_factory=dict)


OWN_OPTION = """
import argparse, pickle
parser = argparse.ArgumentParser()
parser.add_argument("--load-checkpoint", help="checkpoint to continue from")
args = parser.parse_args()
step = pickle.load(open(args.load_checkpoint, "rb"))["step"] if args.load_checkpoint else 0
pickle.dump({"step": step}, open("out/state.pkl", "wb"))
"""
HF_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
CASES = {
    "a script of no framework": Case(
        "own-option", OWN_OPTION, "python train.py", (), "train.py --load-checkpoint CHECKPOINT"
    ),
    "huggingface example script": Case(
        "huggingface",
        trainers.HF_TRAINER,
        "python train.py --output_dir out --max_steps 100",
        ("out/checkpoint-20", "out/checkpoint-40"),
        "train.py --output_dir out --max_steps 100 --resume_from_checkpoint CHECKPOINT",
        (
            *(f"out/checkpoint-{step}/{name}" for step in (20, 40) for name in HF_FILES),
            "out/model.safetensors",
        ),
        {"needs": ("trainer_state.json", "*optim*"), "stop_signal": None, "saves_on_signal": False},
    ),
    "huggingface with its own saving on SIGTERM": Case(
        "huggingface",
        trainers.HF_TRAINER,
        "python train.py --output_dir=out --enable_jit_checkpoint",
        ("out/checkpoint-20",),
        "train.py --output_dir=out --enable_jit_checkpoint --resume_from_checkpoint CHECKPOINT",
        ("out/checkpoint-20/trainer_state.json",),
        {"stop_signal": "TERM", "saves_on_signal": True, "grace_s": 60},
    ),
    "huggingface default folder": Case(
        "huggingface",
        trainers.HF_TRAINER,
        "python train.py",
        ("trainer_output/checkpoint-5",),
        "train.py --resume_from_checkpoint CHECKPOINT",
        ("trainer_output/checkpoint-5/trainer_state.json",),
    ),
    "huggingface finds its last checkpoint": Case(
        "huggingface",
        trainers.HF_LAST_CHECKPOINT,
        "python train.py",
        ("runs/mt/checkpoint-500",),
        "train.py",
        ("runs/mt/checkpoint-500/trainer_state.json", "other/checkpoint-1/trainer_state.json"),
        {"resumes": "rerun"},
    ),
    "trl without a way": Case(
        "huggingface",
        trainers.TRL_SFT,
        "accelerate launch --num_processes 2 train.py",
        (),
        "launch --num_processes 2 train.py",
        ("sft-out/checkpoint-50/trainer_state.json",),
        {"resumes": "none", "grace_s": 60, "integration": "transformers", "globs": ()},
    ),
    "diffusers": Case(
        "accelerate",
        trainers.DIFFUSERS,
        "accelerate launch train.py --resolution=64",
        ("ddpm-model-64/checkpoint-500",),
        "launch train.py --resolution=64 --resume_from_checkpoint CHECKPOINT",
        ("ddpm-model-64/checkpoint-500/optimizer.bin", "ddpm-model-64/logs/x"),
        {"needs": ("random_states_0.pkl",), "note": ""},
    ),
    "accelerate example": Case(
        "accelerate",
        trainers.ACCELERATE,
        "python train.py --output_dir out --checkpointing_steps 20",
        ("out/step_20",),
        "train.py --output_dir out --checkpointing_steps 20 --resume_from_checkpoint CHECKPOINT",
        ("out/step_20/random_states_0.pkl",),
        {"note": ""},
    ),
    "accelerate example that saves nothing": Case(
        "accelerate",
        trainers.ACCELERATE,
        "python train.py",
        (),
        "train.py --resume_from_checkpoint CHECKPOINT",
        extra={"note": "--checkpointing_steps is not given, so it will save no checkpoint"},
    ),
    "lightning command line": Case(
        "lightning",
        trainers.LIGHTNING_CLI,
        "python train.py fit --trainer.max_epochs 3",
        (
            "lightning_logs/version_0/checkpoints/epoch=0-step=64.ckpt",
            "lightning_logs/version_1/checkpoints/last.ckpt",
        ),
        "train.py fit --trainer.max_epochs 3 --ckpt_path CHECKPOINT",
        ("lightning_logs/version_0/metrics.csv", "lightning_logs/version_0/config.yaml"),
        {"stop_signal": "TERM"},
    ),
    "lightning script": Case(
        "lightning",
        trainers.LIGHTNING_SCRIPT,
        "python train.py",
        ("weights/last.ckpt",),
        "train.py --ckpt_path CHECKPOINT",
        extra={"saves_on_signal": False},
    ),
    "lightning without a way": Case(
        "lightning",
        trainers.LIGHTNING_NO_WAY,
        "python train.py",
        (),
        "train.py",
        extra={
            "resumes": "none",
            "integration": "lightning",
            "globs": (),
            "grace_s": 60,
            "stop_signal": None,
        },
    ),
    "lightning that saves when it is interrupted": Case(
        "lightning",
        trainers.LIGHTNING_SCRIPT.replace("save_last=True", "save_on_exception=True"),
        "python train.py",
        ("weights/epoch=0-step=3.ckpt",),
        "train.py --ckpt_path CHECKPOINT",
        extra={"saves_on_signal": True, "grace_s": 60, "stop_signal": "TERM"},
    ),
    "keras": Case(
        "keras",
        trainers.KERAS.replace("/tmp_of_run/", ""),
        "python train.py",
        ("backup",),
        "train.py",
        ("backup/latest.weights.h5", "backup/training_metadata.json"),
        {"resumes": "rerun", "needs": ("*.weights.h5", "training_metadata.json"), "in_place": True},
    ),
    "keras without a way": Case(
        "keras-fit",
        trainers.KERAS_FIT,
        "python train.py",
        (),
        "train.py",
        extra={"resumes": "none", "integration": "keras", "globs": (), "grace_s": 60},
    ),
    "tf.keras": Case(
        "keras", trainers.KERAS_TF, "python train.py", ("backup",), "train.py", ("backup/latest.weights.h5",)
    ),
    "nanogpt": Case(
        "nanogpt",
        trainers.NANOGPT,
        "python train.py --out_dir=out-a --init_from=scratch",
        ("out-a/ckpt.pt",),
        "train.py --out_dir=out-a --init_from=scratch --init_from=resume",
        ("out/ckpt.pt",),
        {"in_place": True},
    ),
    "nanogpt with a configuration file": Case(
        "nanogpt",
        trainers.NANOGPT,
        "torchrun --standalone --nproc_per_node=4 train.py config/train_shakespeare_char.py",
        ("out-shakespeare-char/ckpt.pt",),
        "--standalone --nproc_per_node=4 train.py config/train_shakespeare_char.py --init_from=resume",
        ("config/train_shakespeare_char.py",),
        {"grace_s": 40},
    ),
    "timm": Case(
        "timm",
        trainers.TIMM,
        "python train.py /data --model resnet50",
        (
            "output/train/20261121-resnet50/last.pth.tar",
            "output/train/20261121-resnet50/checkpoint-3.pth.tar",
            "output/train/20261122-resnet50/recovery-4-900.pth.tar",
        ),
        "train.py /data --model resnet50 --resume CHECKPOINT",
        ("output/train/20261121-resnet50/model_best.pth.tar", "output/train/20261121-resnet50/summary.csv"),
        {"saves_on_signal": False},
    ),
    "yolo": Case(
        "ultralytics",
        "",
        "yolo detect train data=coco8.yaml model=yolo11n.pt epochs=100",
        ("runs/detect/train/weights/last.pt", "runs/detect/train2/weights/epoch10.pt"),
        "detect train data=coco8.yaml model=yolo11n.pt epochs=100 model=CHECKPOINT resume=True",
        ("runs/detect/train/weights/best.pt", "yolo11n.pt"),
        {"in_place": True},
    ),
    "yolo with a project and a name": Case(
        "ultralytics",
        "",
        "yolo train model=yolo11n.pt project=drones name=small",
        (
            "drones/small/weights/last.pt",
            "drones/small2/weights/last.pt",
            "runs/detect/drones/small/weights/last.pt",
        ),
        "train model=yolo11n.pt project=drones name=small model=CHECKPOINT resume=True",
        ("drones/large/weights/last.pt",),
    ),
    "ultralytics script": Case(
        "ultralytics",
        trainers.ULTRALYTICS,
        "python train.py",
        ("drones/small/weights/last.pt",),
        "train.py",
        extra={"resumes": "none"},
    ),
    "mmengine": Case(
        "mmengine",
        trainers.MMENGINE,
        "python train.py configs/rtmdet_s.py --work-dir exp",
        ("exp/epoch_1.pth", "exp/iter_500.pth"),
        "train.py configs/rtmdet_s.py --work-dir exp --resume CHECKPOINT",
        ("exp/last_checkpoint", "configs/rtmdet_s.py"),
    ),
    "mmsegmentation": Case(
        "mmengine",
        trainers.MMSEG,
        "python train.py configs/unet.py",
        ("work_dirs/unet/iter_4000.pth",),
        "train.py configs/unet.py --resume",
        ("configs/unet.py",),
    ),
    "detectron2": Case(
        "detectron2",
        trainers.DETECTRON2,
        "python train.py --config-file c.yaml OUTPUT_DIR ./exp SOLVER.BASE_LR 0.001",
        ("exp/model_0004999.pth",),
        "train.py --resume --config-file c.yaml OUTPUT_DIR ./exp SOLVER.BASE_LR 0.001",
        ("exp/last_checkpoint", "exp/metrics.json"),
    ),
    "detectron2 default folder": Case(
        "detectron2",
        trainers.DETECTRON2,
        "python train.py",
        ("output/model_final.pth",),
        "train.py --resume",
    ),
    "fairseq": Case(
        "fairseq",
        "",
        "fairseq-train data-bin/wmt --arch transformer --save-dir ck",
        ("ck/checkpoint_last.pt", "ck/checkpoint_1_500.pt"),
        "data-bin/wmt --arch transformer --save-dir ck",
        extra={"resumes": "rerun"},
    ),
    "fairseq from another model": Case(
        "fairseq",
        "",
        "fairseq-train data-bin --restore-file model.pt",
        ("checkpoints/checkpoint_last.pt",),
        "data-bin --restore-file model.pt --restore-file CHECKPOINT",
    ),
    "fairseq that would begin anew": Case(
        "fairseq",
        "",
        "fairseq-train data-bin --restore-file model.pt --reset-optimizer",
        ("checkpoints/checkpoint_last.pt",),
        "data-bin --restore-file model.pt --reset-optimizer",
        extra={"resumes": "none"},
    ),
    "composer": Case(
        "composer",
        trainers.COMPOSER,
        "composer -n 2 train.py",
        ("resnet-a/checkpoints/ep0-ba500-rank0.pt",),
        "-n 2 train.py",
        ("resnet-a/checkpoints/readme",),
        {"resumes": "rerun", "grace_s": 40},
    ),
    "imagenet example": Case(
        "pytorch",
        trainers.IMAGENET,
        "python train.py -a resnet18 /data",
        ("checkpoint.pth.tar",),
        "train.py -a resnet18 /data --resume CHECKPOINT",
        ("model_best.pth.tar",),
        {"in_place": True},
    ),
    "a file for each epoch": Case(
        "pytorch",
        trainers.EPOCH_FILES,
        "python -u train.py --out-dir runs/b",
        ("runs/b/epoch_004.pt", "runs/b/epoch_005.pt"),
        "-u train.py --out-dir runs/b --resume CHECKPOINT",
        ("runs/b/final.pt", "runs/a/epoch_001.pt"),
        {"in_place": False},
    ),
    "loads what it saves": Case(
        "pytorch",
        trainers.LOADS_ITSELF,
        "python train.py",
        ("state/last.pt",),
        "train.py",
        extra={"resumes": "rerun", "in_place": True},
    ),
    "torchrun as a module": Case(
        "pytorch",
        trainers.IMAGENET,
        "python -m torch.distributed.run --nproc_per_node 2 train.py --epochs 5",
        ("checkpoint.pth.tar",),
        "-m torch.distributed.run --nproc_per_node 2 train.py --epochs 5 --resume CHECKPOINT",
        extra={"grace_s": 40},
    ),
}


def planned(folder: Path, text: str, words: str = "python train.py", **more: object) -> Plan:
    """The plan for a command in `folder`, whose train.py has this text."""
    (folder / "train.py").write_text(text)
    argv = words.split()
    return plan_for(argv, argv[0], folder / "train.py", folder, READER, **more)  # type: ignore[arg-type]


def matching(pattern: str) -> list[str]:
    """As whoever watches a run looks for them: the patterns are absolute, which pathlib does not take."""
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


def spec(folder: Path, words: str, plan: Plan, resume_arg: str = "auto") -> RunSpec:
    argv = tuple(words.split())
    return RunSpec(argv=argv, program=argv[0], cwd=str(folder), plan=plan, resume_arg=resume_arg)


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


OPTIONS = {
    "p.add_argument('--resume', help='path to latest checkpoint')": "--resume CHECKPOINT",
    "p.add_argument('-r', '--resume', type=Path)": "--resume CHECKPOINT",
    "p.add_argument('--resume-from', default=None)": "--resume-from CHECKPOINT",
    "p.add_argument('--resume', action='store_true')": "--resume",
    "p.add_argument('--resume', action=argparse.BooleanOptionalAction)": "--resume",
    "p.add_argument('--resume', type=bool, default=False)": "--resume True",
    "p.add_argument('--resume', type=int)": None,
    "p.add_argument('--resume', choices=['auto', 'never'])": "--resume auto",
    "p.add_argument('--resume', choices=['never', 'no'])": None,
    "p.add_argument('--resume', choices=['auto', 'allow', 'must'])": None,
    "@click.option('--resume', type=click.Choice(['no', 'latest']))\ndef f(resume): pass": "--resume latest",
    "p.add_argument('--resume', help='id of the run in W&B')": None,
    "p.add_argument('--resume', help='experiment folder to go on in')": None,
    "p.add_argument('--resume-epoch', type=int)": None,
    "p.add_argument('--checkpoint', help='checkpoint to resume from')": "--checkpoint CHECKPOINT",
    "p.add_argument('--checkpoint', help='where to save the checkpoint')": None,
    "p.add_argument('--checkpoint', help='pretrained weights to start from')": None,
    "p.add_argument('--checkpoint', help='file to evaluate')": None,
    "p.add_argument('--checkpoint')": None,
    "p.add_argument('--checkpoint')\nopt.load_state_dict(torch.load(args.checkpoint)['opt'])": (
        "--checkpoint CHECKPOINT"
    ),
    "p.add_argument('--ckpt')\nc = args.ckpt\nx = torch.load(c)\noptimizer.load_state_dict(x)": "--ckpt CHECKPOINT",
    "p.add_argument('--checkpoint')\nmodel.load_state_dict(torch.load(args.checkpoint))": None,
    "p.add_argument('--checkpoint')\nopt.load_state_dict(torch.load(args.checkpoint))\n"
    "torch.save(state, args.checkpoint)": None,
    "p.add_argument('--load', help='Load model from a .pth file')\n"
    "state = torch.load(args.load)\nmodel.load_state_dict(state)": None,
    "p.add_argument('--load', help='load state from')\ns = torch.load(args.load)\nopt.load_state_dict(s)": (
        "--load CHECKPOINT"
    ),
    "p.add_argument('--resume')\nmodel.load_state_dict(torch.load(args.resume))": None,
    "p.add_argument('--resume')\nc = torch.load(args.resume)\nstart = c['epoch']": "--resume CHECKPOINT",
    "p.add_argument('--resume')\nc = torch.load(args.resume)\nstart = c.get('step', 0)": "--resume CHECKPOINT",
    "p.add_argument('--resume')\nload_checkpoint(args.resume, model, optimizer)": "--resume CHECKPOINT",
    "p.add_argument('--resume')\nload_checkpoint(args.resume)": "--resume CHECKPOINT",
    "p.add_argument('--resume', action='store_true')\nnet.load_state_dict(torch.load('a.pt'))": None,
    "p.add_argument('--resume', action='store_true')\nc = torch.load('a.pt')\nbegin = c['epoch']": "--resume",
    "p.add_argument('--resume', help='path to pretrained weights')": None,
    "p.add_argument('--weights', help='weights to continue from')": None,
    "p.add_argument('--pretrained', help='checkpoint to resume from')": None,
    "p.add_argument('--init-from', help='checkpoint to start from')": None,
    "@click.option('--resume', type=click.Path())\ndef f(resume): pass": "--resume CHECKPOINT",
    "@click.option('--resume/--no-resume')\ndef f(resume): pass": "--resume",
    "@click.option('--resume', is_flag=True)\ndef f(resume): pass": "--resume",
    "flags.DEFINE_string('resume_from', None, 'checkpoint to go on from')": "--resume_from=CHECKPOINT",
    "flags.DEFINE_bool('resume', False, 'go on')": "--resume=true",
    "import fire\ndef main(resume=None, lr=0.1): pass\nfire.Fire(main)": "--resume=CHECKPOINT",
    "import tyro\ndef main(resume: str | None = None): pass\ntyro.cli(main)": "--resume CHECKPOINT",
    "import tyro\nclass A:\n  resume: bool = False\ntyro.cli(A)": "--resume",
    "import typer\ndef main(resume_from: 'str' = None): pass\ntyper.run(main)": "--resume-from CHECKPOINT",
    "class A:\n  resume: str = None": None,
}


@pytest.mark.parametrize("text", OPTIONS)
def test_which_of_its_own_options_a_script_is_resumed_by(text: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"import torch, argparse\nfrom pathlib import Path\n{text}\n")
    told = command_line(spec(tmp_path, "python train.py", plan), "CHECKPOINT")[2:]
    assert (" ".join(told) or None) == OPTIONS[text], plan


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s = pickle.load(open(args.resume, 'rb'))\nstep = s['step']", "--resume CHECKPOINT"),
        ("params, step = pickle.load(open(args.resume, 'rb'))", "--resume CHECKPOINT"),
        ("s = restore(args.resume)", "--resume CHECKPOINT"),
        ("params = pickle.load(open(args.resume, 'rb'))", None),
        ("params = np.load(args.resume)", None),
    ],
)
def test_a_script_of_no_framework_is_resumed_by_its_option(
    text: str, told: str | None, tmp_path: Path
) -> None:
    head = "import argparse, pickle, numpy as np\np.add_argument('--resume')\n"
    plan = planned(tmp_path, f"{head}{text}\npickle.dump(s, f)\n")
    words = " ".join(command_line(spec(tmp_path, "python train.py", plan), "CHECKPOINT")[2:])
    assert ((words or None), plan.guessed, plan.globs, plan.note) == (told, told is not None, (), "")
    assert planned(tmp_path, f"{head}{text}\n") == Plan(), "one that saves nothing has nothing to resume from"


def test_where_its_text_says_that_it_saves_is_a_hint(tmp_path: Path) -> None:
    text = (
        "import argparse, joblib, numpy as np, pickle\nfrom pathlib import Path\n"
        "p.add_argument('--resume')\np.add_argument('--lr', type=float)\n"
        "pickle.dump(s, open(f'out/lr{args.lr}/ckpt.pkl', 'wb'))\n"
        "np.save(Path('arrays') / f'{args.lr}.npy', a)\njoblib.dump(m, 'm.joblib')\nopen('data.txt').read()\n"
    )
    plan = planned(tmp_path, text, "python train.py --lr 1e-3")
    found = ("out/lr0.001/ckpt.pkl", "arrays/0.001.npy", "m.joblib")
    assert (plan.expects, plan.globs) == (tuple(f"{tmp_path}/{each}" for each in found), ())


def test_a_framework_in_a_module_of_its_own_is_better_than_a_guess(tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text(trainers.IMAGENET)
    plan = planned(
        tmp_path, "import argparse, pickle, trainer\np.add_argument('--resume')\npickle.dump(s, f)\n"
    )
    assert (plan.recipe, plan.guessed) == ("pytorch", False)


def test_the_words_go_where_the_script_reads_them(tmp_path: Path) -> None:
    plan = planned(tmp_path, trainers.IMAGENET, "python train.py --epochs 3 -- a b")
    told = command_line(spec(tmp_path, "python train.py --epochs 3 -- a b", plan), "C")
    assert told == ("python", "train.py", "--epochs", "3", "--resume", "C", "--", "a", "b")
    rest = f"{trainers.IMAGENET}\nparser.add_argument('rest', nargs=argparse.REMAINDER)\n"
    told = command_line(
        spec(tmp_path, "python train.py x y", planned(tmp_path, rest, "python train.py x y")), "C"
    )
    assert told == ("python", "train.py", "--resume", "C", "x", "y")


def test_a_checkpoint_is_one_argument_whatever_it_is_called(tmp_path: Path) -> None:
    odd = "/a b/$(rm -rf)/{checkpoint}'.pt"
    told = command_line(spec(tmp_path, "yolo train", planned(tmp_path, "", "yolo train")), odd)
    assert told == ("yolo", "train", f"model={odd}", "resume=True")


@pytest.mark.parametrize(
    ("line", "signal", "saves"),
    [
        ("signal.signal(signal.SIGTERM, save_and_exit)", "TERM", True),
        ("signal.signal(signal.SIGUSR1, handler)", "USR1", True),
        ("signal.signal(signal.SIGINT, handler)", None, True),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", None, False),
        ("try:\n  fit()\nexcept KeyboardInterrupt:\n  save_checkpoint(state)", None, True),
        ("try:\n  fit()\nexcept KeyboardInterrupt:\n  print('bye')", None, False),
    ],
)
def test_a_script_that_handles_a_signal_gets_that_one(
    line: str, signal: str | None, saves: bool, tmp_path: Path
) -> None:
    plan = planned(tmp_path, f"import signal\n{trainers.IMAGENET}\n{line}\n")
    assert (plan.stop_signal, plan.saves_on_signal) == (signal, saves)
    text = f"import signal\n{trainers.IMAGENET}\n{line}\n"
    assert planned(tmp_path, text, "accelerate launch train.py").saves_on_signal == saves
    assert not planned(tmp_path, text, "mpirun train.py").saves_on_signal, "it may not have the time"


def test_what_the_user_says_wins(tmp_path: Path) -> None:
    named = planned(tmp_path, trainers.TRL_SFT, resume_arg="--go-on '{checkpoint}'")
    assert (named.resumes, named.resume_words) == ("append", ("--go-on", "{checkpoint}"))
    told = command_line(spec(tmp_path, "python train.py", named, "--go-on {checkpoint}"), "C")
    assert told == ("python", "train.py", "--go-on", "C")
    silent = planned(tmp_path, trainers.IMAGENET, resume_arg="none")
    assert (silent.recipe, silent.resumes, silent.resume_words) == ("pytorch", "unknown", ())
    assert planned(tmp_path, trainers.IMAGENET, recipe_override="none") == Plan()
    own = planned(tmp_path, trainers.HF_TRAINER, globs=("a/ckpt-*", "/abs/last.pt"))
    assert own.globs == (f"{tmp_path}/a/ckpt-*", "/abs/last.pt")
    assert own.recipe == "huggingface"
    alone = planned(tmp_path, "print(1)", recipe_override="none", globs=("out/last.pt",))
    assert alone == Plan(globs=(f"{tmp_path}/out/last.pt",), in_place=True)
    forced = planned(tmp_path, "from my import main\nmain()\n", recipe_override="huggingface")
    assert forced.resume_words == ("--resume_from_checkpoint", "{checkpoint}")
    unsure = planned(tmp_path, "from my import main\nmain()\n", recipe_override="pytorch")
    assert (unsure.resumes, "--resume-arg" in unsure.why) == ("unknown", True)


@pytest.mark.parametrize(
    "pattern", ["", " ", "/*", "/**/*.pt", "/*/x.pt", "out/*", "out/\n.pt", "x" * 5000, "a\udcff.pt"]
)
def test_a_bad_pattern_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(BadCommand, match="--checkpoint-glob") as told:
        planned(tmp_path, "", globs=(pattern,))
    assert "\n" not in str(told.value)


def test_odd_folders_are_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "a[1] *"
    (folder / "o?t").mkdir(parents=True)
    (folder / "o?t" / "checkpoint-3").mkdir()
    (folder / "oat" / "checkpoint-4").mkdir(parents=True)
    plan = planned(folder, trainers.HF_TRAINER, "python train.py --output_dir o?t")
    assert matching(plan.globs[0]) == [str(folder / "o?t" / "checkpoint-3")]


NO_PYTHON_YET = "def train[[T]](\n    a: T,\n) =>\n    "
"""Syntax of no Python so far, as that of a newer one looks to an older."""


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].text])
def test_a_script_of_another_python_is_parsed_block_by_block(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    expected = planned(tmp_path, case.text, case.words)
    assert planned(tmp_path, f"print x\n{case.text}\nprint y\n", case.words) == expected
    inside = case.text.rstrip().replace("\n", "\n    ")
    found = planned(tmp_path, f"{NO_PYTHON_YET}{inside}\n    print x\n", case.words)
    assert (found.recipe, found.globs, found.resume_words) == (
        expected.recipe,
        expected.globs,
        expected.resume_words,
    )


def test_what_cannot_be_parsed_at_all_has_no_recipe(tmp_path: Path) -> None:
    long = trainers.HF_TRAINER + "# \n" * PARSE_LIMIT_BYTES
    plan = planned(tmp_path, long, "python train.py --output_dir o")
    assert (plan.recipe, plan.globs) == ("huggingface", (f"{tmp_path}/o/checkpoint-*",))
    assert planned(tmp_path, "print x\n# import torch, '--resume'\n") == Plan()


def test_where_ultralytics_was_told_to_put_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    (tmp_path / "settings.json").write_text(json.dumps({"runs_dir": "/data/runs"}))
    assert "/data/runs/*/*/weights/last.pt" in planned(tmp_path, "", "yolo train").globs
    for text in ("{", "[]", '{"runs_dir": 3}', '{"runs_dir": "relative"}'):
        (tmp_path / "settings.json").write_text(text)
        assert planned(tmp_path, "", "yolo train").recipe == "ultralytics"


def test_the_document_is_what_the_entries_say() -> None:
    assert (ROOT / "docs" / "recipes.md").read_text() == page(), (
        "python -m tools.docs.recipes > docs/recipes.md"
    )


PIECES = st.sampled_from(
    [
        "import torch\n", "from transformers import Trainer, TrainingArguments\n", "import pytorch_lightning as pl\n",
        "Trainer(output_dir=", "pl.Trainer().fit(", "torch.save(x, ", "os.path.join(", "f'{a}/b",
        "p.add_argument('--resume'",
        "class A:\n  resume: str = ", "tyro.cli(A)", "'ckpt.pt'", "init_from", "a = a\n", "a = b / c\n", "(", ")", "\n",
        "'", '"""', "\\", "\0", "\udcff", "lambda: ", "[", "*", "%", "{", "}", "#",
    ]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=40).map("".join)
WORDS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [
                "train.py",
                "-m",
                "yolo",
                "train",
                "--",
                "--output_dir",
                "out_dir=x",
                "torchrun",
                "fairseq-train",
            ]
        ),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=2000)
@given(text=TEXTS, raw=st.binary(max_size=30), words=WORDS)
def test_no_text_and_no_command_line_is_too_odd(
    tmp_path_factory: pytest.TempPathFactory, text: str, raw: bytes, words: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "train.py").write_bytes(text.encode(errors="surrogatepass") + raw)
    plan = plan_for(["python", "train.py", *words], "python", folder / "train.py", folder, READER)
    assert all(each.startswith("/") for each in plan.globs)
    plan_for([*words, "train.py"], "", folder / "train.py", folder, READER)
    for recipe in BY_NAME:
        plan_for(["python", "train.py", *words], "python", folder / "train.py", folder, READER, recipe)


ENDLESS = {
    "one word": b"torch" + b"a" * (1 << 20),
    "parentheses": b"import torch\n" + b"(" * (1 << 19),
    "unary": b"import torch\nx = " + b"-" * 100_000 + b"1\n",
    "sums": b"import torch\ntorch.save(a, " + b"'a'+" * 20_000 + b"'b')\n",
    "attributes": b"import torch\ntorch.save(a, x" + b".y" * 50_000 + b")\n",
    "names for names": b"import torch\n" + b"".join(b"a%d = a%d + a%d\n" % (n, n + 1, n + 1) for n in range(3000))
    + b"torch.save(x, a0)\n",
    "saves": b"import torch\ndef f(p): torch.save(x, p)\n" + b"torch.save(x, f'{a}/{b}')\nf('a')\n" * 5000,
    "options": b"import torch, argparse\n" + b"p.add_argument('--checkpoint', help='to load')\n" * 5000,
    "options in what cannot be parsed": b"print x\nimport torch\n" + b"p.add_argument(((" * 60_000,
    "blanks": b"print x\nimport torch\nfrom " + b" " * (1 << 20),
    "quotes": b"print x\nimport torch\n" + b"a='" * (1 << 18),
    "nothing but NULs": b"torch" + b"\0" * (1 << 20),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_no_script_keeps_the_user_waiting(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(ENDLESS[name])
    began_s = time.monotonic()
    plan_for(["python", "train.py"], "python", tmp_path / "train.py", tmp_path, READER)
    assert time.monotonic() - began_s < 10, "a second or so, on a machine with nothing else to do"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.py")
    assert plan_for(["python", "train.py"], "python", tmp_path / "train.py", tmp_path, READER) == Plan()
    assert plan_for(["python", "missing.py"], "python", tmp_path / "missing.py", tmp_path, READER) == Plan()
    (tmp_path / "a.py").mkdir()
    assert plan_for(["python", "a.py"], "python", None, tmp_path, READER) == Plan()


def test_options_as_they_are_written() -> None:
    told = options_in(
        ["--a=1", "--b-c", "2", "--flag", "--d", "", "e=5", "OUTPUT_DIR", "x", "word", "--a=9", "t.max=3"]
    )
    assert told["a"] == "9"
    assert (told["b_c"], told["flag"], told["e"], told["OUTPUT_DIR"], told["t.max"], told["max"]) == (
        "2", "", "5", "x", "3", "3",
    )  # fmt: skip
    assert "word" not in told


def test_what_stands_before_the_script(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").touch()
    module = read_command(["python", "-m", "pkg.train", "--a", "1"], tmp_path, READER)
    assert (module.script, module.at) == (tmp_path / "pkg" / "train.py", 3)
    deep = read_command(
        ["nice", "uv", "run", "accelerate", "launch", "--x", "1", "pkg/train.py", "b"], tmp_path, READER
    )
    assert (deep.launchers, deep.arguments) == (frozenset({"accelerate"}), ("b",))
    assert read_command(["/venv/bin/yolo", "train"], tmp_path, READER).entry == "yolo"
    assert read_command(["bash", "train.sh"], tmp_path, READER).script is None


def test_options_are_found_once_by_name() -> None:
    twice = b"p.add_argument('-o', '--out-dir', default='a')\np.add_argument('--out_dir', default='b')\n"
    found = options_of(parse(twice + b"p.add_argument('x')\n"))
    assert list(found) == ["out_dir"]
    assert found["out_dir"].flag == "--out-dir"


class Memory:
    """A machine of a few texts, and nothing else."""

    environment: Mapping[str, str] = {"YOLO_CONFIG_DIR": "~/yolo"}

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def is_file(self, path: PurePath) -> bool:
        return str(path) in self._files

    def read(self, path: PurePath, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        return self._files.get(str(path), b"")[:limit_bytes]

    def expand_user(self, path: str) -> str:
        return path.replace("~", "/home/a", 1)


def test_a_plan_needs_no_disk() -> None:
    cwd = PurePath("/nowhere")
    memory = Memory(
        {"/nowhere/train.py": trainers.IMAGENET.encode(), "/home/a/yolo/settings.json": b'{"runs_dir": "/r"}'}
    )
    plan = plan_for(["python", "train.py"], "python", None, cwd, memory, globs=["~/out/*.pt"])
    assert (plan.recipe, plan.globs) == ("pytorch", ("/home/a/out/*.pt",))
    assert "/r/*/*/weights/last.pt" in plan_for(["yolo", "train"], "yolo", None, cwd, memory).globs


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
