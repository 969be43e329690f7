"""The words by which a recognised script is resumed: its own option, the user's, and where they stand."""

from pathlib import Path

import pytest

from backprop.scheduler.spec import Plan
from backprop.worker.checkpoints.resume import command_line
from tests.support import training_scripts as trainers
from tests.support.planning import planned, spec

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
