"""Integrations attached at launch: the folder on PYTHONPATH, in interpreters with stubs of the frameworks."""

import ast
import json
import os
from pathlib import Path

import pytest

from backprop.worker.environment.integrations import FOLDER
from tests.support.at_launch import Script
from tests.support.harness import ROOT

TRAINER = """
class Handler:
    def __init__(self): self.callbacks = []
class Arguments:
    save_only_model, world_size, output_dir = False, 1, "out"
class State:
    global_step, max_steps, is_world_process_zero = 3, 9, True
class Control:
    should_save = should_evaluate = False
class Trainer:
    def __init__(self): self.args, self.callback_handler = Arguments(), Handler()
    def add_callback(self, one): self.callback_handler.callbacks.append(one)
    def remove_callback(self, one): self.callback_handler.callbacks.remove(one)
    def train(self, resume_from_checkpoint=None, trial=None):
        control = Control()
        for one in self.callback_handler.callbacks:
            one.on_train_begin(self.args, State(), control)
            one.on_step_end(self.args, State(), control)
        print("trained from", resume_from_checkpoint, "with", len(self.callback_handler.callbacks), "callbacks")
"""
PACKAGE = """
__version__ = "{version}"
class TrainerCallback: pass
def __getattr__(name):
    if name != "Trainer": raise AttributeError(name)
    from .trainer import Trainer
    return Trainer
"""
TRAIN = "from transformers import Trainer\nTrainer().train()\n"


class Transformers(Script):
    """A script beside a stub of transformers, and a checkpoint of its Trainer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.checkpoint.mkdir()
        (self.checkpoint / "trainer_state.json").write_text("{}")
        self.stub()

    def stub(self, version: str = "5.23.0") -> None:
        self.module("transformers/__init__.py", PACKAGE.format(version=version))
        self.module("transformers/trainer.py", TRAINER)


@pytest.fixture
def script(tmp_path: Path) -> Transformers:
    return Transformers(tmp_path)


def test_a_training_is_handed_its_checkpoint_and_saves_when_asked(script: Transformers) -> None:
    printed, said = script.run(TRAIN)

    assert printed == f"trained from {script.checkpoint} with 1 callbacks\n"
    assert said == "backprop: integration for transformers 5.23.0 attached, goes on from a checkpoint\n"
    assert {"attached", "heeds-stop", "takes-checkpoint", "events.jsonl"} <= script.notes
    assert "stood-back" in script.notes, "what follows a training is not saved when asked"
    assert json.loads((script.segment / "events.jsonl").read_text())["metrics"] == {"total": 9}


@pytest.mark.parametrize(
    "without", ["BACKPROP_RUN_ID", "BACKPROP_SEGMENT", "BACKPROP_INTEGRATIONS"], ids=lambda name: name[9:]
)
def test_outside_the_run_that_asked_for_it_nothing_is_loaded(script: Transformers, without: str) -> None:
    environment = script.environment()
    del environment[without]
    printed, said = script.run(
        f"{TRAIN}import sys\nprint([name for name in sys.modules if 'backprop' in name])\n",
        environment=environment,
    )
    assert (printed, said) == ("trained from None with 0 callbacks\n[]\n", "")
    assert not script.notes


@pytest.mark.parametrize(
    "environment", [{"BACKPROP_NO_INTEGRATIONS": "1"}, {"BACKPROP_INTEGRATIONS": "another:1:abc"}], ids=str
)
def test_it_can_be_switched_off_within_a_run(script: Transformers, environment: dict[str, str]) -> None:
    printed, said = script.run(TRAIN, environment=script.environment(**environment))
    assert (printed, said) == ("trained from None with 0 callbacks\n", "")


@pytest.mark.parametrize("option", ["-I", "-S", "-E", "-s", "-P"])
def test_no_option_of_the_interpreter_breaks_it(script: Transformers, option: str) -> None:
    site = f"import sys\nsys.path.append({str(script.folder / 'site')!r})\n"
    printed, _ = script.run(site + TRAIN, option)
    attached = option in ("-s", "-P")
    assert printed == f"trained from {script.checkpoint if attached else None} with {attached:d} callbacks\n"


CLEARS = "import os, shutil\nshutil.rmtree(os.environ['BACKPROP_RESUME_FROM'])\n"


def test_a_script_that_clears_its_folder_at_its_start_goes_on_all_the_same(script: Transformers) -> None:
    (script.checkpoint / "deep").mkdir()
    (script.checkpoint / "deep" / "optimizer.pt").write_bytes(b"state" * 1000)
    os.mkfifo(script.checkpoint / "deep" / "pipe")
    os.utime(script.checkpoint / "trainer_state.json", (1, 1))
    printed, said = script.run(TRAIN.replace("\n", f"\n{CLEARS}", 1))

    assert printed.startswith(f"trained from {script.checkpoint} with 1")
    assert said.startswith("backprop: the script had removed the checkpoint to go on from; it was put back\n")
    assert (script.checkpoint / "deep" / "optimizer.pt").read_bytes() == b"state" * 1000
    assert (script.checkpoint / "trainer_state.json").stat().st_mtime == 1, "it is no new save"
    assert not list(script.checkpoint.rglob("*.part"))


def test_what_is_removed_before_anybody_could_hold_it_is_said(script: Transformers) -> None:
    printed, said = script.run(CLEARS + TRAIN)

    assert printed.startswith("trained from None with 0")
    assert "left alone: the checkpoint to go on from is gone" in said
    assert "stood-back" in script.notes


def test_a_script_that_does_it_itself_is_left_alone(script: Transformers) -> None:
    text = TRAIN.replace("train()", "train(resume_from_checkpoint='mine')")
    printed, said = script.run(text)
    assert printed == "trained from mine with 0 callbacks\n"
    assert "left alone: the script says itself what to resume from" in said
    assert "heeds-stop" not in script.notes

    printed, said = script.run(
        "import backprop\n" + TRAIN,
        environment=script.environment()
        | {
            "PYTHONPATH": os.pathsep.join([FOLDER, str(script.folder / "site"), str(Path(FOLDER).parents[2])])
        },
    )
    assert printed == "trained from None with 0 callbacks\n"
    assert said == "backprop: transformers is left alone: the script imports backprop itself\n"


@pytest.mark.parametrize("version", ["4.1.0", "6.0.0.dev0", "unknown"])
def test_a_version_that_is_not_tested_is_left_alone(script: Transformers, version: str) -> None:
    script.stub(version)
    printed, said = script.run(TRAIN)
    assert printed == "trained from None with 0 callbacks\n"
    assert said.startswith("backprop: ") and said.count("\n") == 1
    assert "stood-back" in script.notes


def test_only_the_first_training_of_a_run_is_the_one(script: Transformers) -> None:
    printed, said = script.run(f"{TRAIN}Trainer().train()\n")
    assert [line.split()[2] for line in printed.splitlines()] == [str(script.checkpoint), "None"]
    assert "this process has trained before" in said

    printed, said = script.run(TRAIN)  # once more within the segment: the next of a loop in a shell script
    assert printed == "trained from None with 0 callbacks\n"
    assert "another training of this segment came first" in said


def test_a_later_segment_knows_its_training_by_its_command(script: Transformers) -> None:
    script.run(TRAIN)
    script.segment = script.folder / "run" / "2"
    script.segment.mkdir()
    second = script.environment(BACKPROP_SEGMENT="2", BACKPROP_INTEGRATIONS="r:2:abc")
    other = script.folder / "other.py"
    other.write_text(TRAIN)
    text = f"import subprocess, sys\nsubprocess.run([sys.executable, {str(other)!r}], check=True)\n{TRAIN}"

    printed, said = script.run(
        text.replace("Trainer().train()", "sys.stdout.flush()\nTrainer().train()"), environment=second
    )

    lines = printed.splitlines()
    assert [line.split()[2] for line in lines] == ["None", str(script.checkpoint)]
    assert "another training of this run came first" in said


def test_data_workers_and_other_children_report_nothing(script: Transformers) -> None:
    text = (
        "import multiprocessing\nfrom transformers import Trainer\ndef work(at): return at + 1\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(work, [1]))\n"
    )
    assert script.run(text) == ("[2]\n", "")
    assert script.notes == {"stack-dumps"}, "none of a training"


def test_what_breaks_inside_ends_no_training(script: Transformers) -> None:
    text = f"{TRAIN.splitlines()[0]}\nimport transformers.trainer as t\nt.State.max_steps = 'many'\n{TRAIN}"
    printed, said = script.run(text)
    assert printed == f"trained from {script.checkpoint} with 1 callbacks\n"
    assert said.count("the integration for transformers stops") == 1

    printed, said = Transformers(script.folder / "again").run(
        f"{TRAIN.splitlines()[0]}\nTrainer.add_callback = None\n{TRAIN}"
    )
    assert printed == "trained from None with 0 callbacks\n"
    assert said.startswith("backprop: no integration for transformers: TypeError")


def test_a_training_that_fails_fails_as_it_would(script: Transformers) -> None:
    text = (
        "from transformers import Trainer\nclass Mine(Trainer):\n"
        "    def add_callback(self, one): super().add_callback(one); one.on_train_begin = lambda *_: 1 / 0\n"
        "try: Mine().train()\nexcept ZeroDivisionError: print('its own')\n"
    )
    assert script.run(text)[0] == "its own\n"


@pytest.mark.parametrize("theirs", ["print('theirs')", "raise ValueError('theirs')", "import nothing_there"])
def test_the_sitecustomize_that_ours_hides_follows(script: Transformers, theirs: str) -> None:
    (script.folder / "site" / "sitecustomize.py").write_text(theirs)
    plain = script.environment() | {"PYTHONPATH": str(script.folder / "site")}
    expected = script.run("import sys\nprint('sitecustomize' in sys.modules)", environment=plain)
    seen = script.run("import sys\nprint('sitecustomize' in sys.modules)")
    assert seen[0] == expected[0]
    assert seen[1].splitlines()[-1:] == expected[1].splitlines()[-1:]
    assert str(script.checkpoint) in script.run(TRAIN)[0]


def test_the_folder_leaves_no_trace_on_the_path(script: Transformers) -> None:
    printed, _ = script.run("import os, sys\nprint(sys.path[0], [p for p in sys.path if 'at_launch' in p])")
    assert printed == f"{script.folder} []\n"
    assert [path.name for path in Path(FOLDER).iterdir() if path.name != "__pycache__"] == [
        "sitecustomize.py"
    ]


def test_old_interpreters_can_read_it() -> None:
    ast.parse((Path(FOLDER) / "sitecustomize.py").read_text(), feature_version=(3, 4))
    for path in (ROOT / "sdk").rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 10))
