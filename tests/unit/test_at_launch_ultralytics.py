"""The integration for Ultralytics attached at launch: what it announces, tells, hands over, and leaves alone."""

import json
from pathlib import Path

import pytest

from tests.support.at_launch import Script

MODEL = """
from pathlib import Path

class Trainer:
    def __init__(self, options, callbacks):
        self.options, self.callbacks = options, callbacks
        self.epochs, self.last, self.stop = options["epochs"], Path("last.pt"), False
        self.metrics, self.tloss = {"metrics/mAP50(B)": 0.25, "fitness": 1.0}, {"box": 1.5, "cls": 0.5}
    def call(self, name):
        for one in self.callbacks.get(name, ()): one(self)
    def train(self):
        resumed = self.options.get("resume")
        self.epoch = int(Path(resumed).read_text()) if resumed else 0
        self.call("on_train_start")
        while self.epoch < self.epochs:
            self.last.write_text(str(self.epoch + 1))
            self.call("on_model_save")
            self.call("on_fit_epoch_end")
            self.epoch += 1
        self.call("on_fit_epoch_end")

class Model:
    def __init__(self): self.overrides, self.callbacks = {"model": "yolo11n.pt"}, {}
    def add_callback(self, name, hook): self.callbacks.setdefault(name, []).append(hook)
    def train(self, trainer=None, **options):
        Trainer(options, self.callbacks).train()
        print("trained with", sorted(self.callbacks), "from", options.get("resume"))
"""
UTILS = "class YAML:\n    @staticmethod\n    def load(path): return {'time': 2}\n"
PACKAGE = "__version__ = '{version}'\nfrom ultralytics.engine.model import Model\nYOLO = Model\n"
TRAIN = "from ultralytics import YOLO\nYOLO().train(data='d.yaml', epochs=4)\n"
HOOKS = "['on_fit_epoch_end', 'on_model_save', 'on_train_start']"


class Ultralytics(Script):
    """A script beside a stub of Ultralytics."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.checkpoint = folder / "epoch-2.pt"
        self.module("ultralytics/engine/__init__.py", "")
        self.module("ultralytics/engine/model.py", MODEL)
        self.module("ultralytics/utils.py", UTILS)
        self.stub()

    def stub(self, version: str = "8.4.190") -> None:
        self.module("ultralytics/__init__.py", PACKAGE.format(version=version))

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.segment / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def script(tmp_path: Path) -> Ultralytics:
    return Ultralytics(tmp_path)


def test_a_training_announces_copies_and_tells_its_epochs(script: Ultralytics) -> None:
    fresh = script.environment(BACKPROP_CHECKPOINT_EVERY_SECONDS="0.000001") | {"BACKPROP_RESUME_FROM": ""}
    printed, said = script.run(TRAIN, environment=fresh)
    assert printed == f"trained with {HOOKS} from None\n"
    assert said == "backprop: integration for ultralytics 8.4.190 attached\n"
    saved = [one for one in script.events() if "path" in one]
    assert [one["step"] for one in saved] == [1, 2, 3], "the last epoch leaves nothing to resume"
    copies = sorted((script.folder / "backprop_checkpoints" / "r").iterdir())
    assert [copy.name for copy in copies] == ["epoch-2.pt", "epoch-3.pt"]
    assert saved[-1]["path"] == str(copies[-1])
    assert copies[-1].read_text() == "3"
    told = [one for one in script.events() if "loss" in one]
    assert [one["step"] for one in told] == [1, 2, 3, 4], "the final validation is no epoch"
    assert told[0] == {"step": 1, "loss": 2.0, "metrics": {"total": 4, "mAP50": 0.25}}


def test_it_copies_once_a_minute_unless_asked_for_more(script: Ultralytics) -> None:
    script.run(TRAIN, environment=script.environment() | {"BACKPROP_RESUME_FROM": ""})
    assert [one["step"] for one in script.events() if "path" in one] == [1]


def test_a_resume_gets_the_copy_and_the_stop_signal_stays_the_scripts(script: Ultralytics) -> None:
    script.checkpoint.write_text("2")
    printed, said = script.run(TRAIN)
    assert printed == f"trained with {HOOKS} from {script.checkpoint}\n"
    assert "attached, goes on from a checkpoint" in said
    assert [one["step"] for one in script.events() if "loss" in one] == [3, 4]
    assert "takes-checkpoint" in script.notes
    assert "heeds-stop" not in script.notes


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("epochs=2, resume=True", "the script says itself what to resume from"),
        ("epochs=2, trainer=object()", "it has a trainer of its own"),
        ("epochs=2, save=False", "save=False saves nothing"),
        ("epochs=2, time=0.5", "it ends by the clock (time=)"),
        ("epochs=2, cfg='mine.yaml'", "it ends by the clock (time=)"),
        ("epochs=2, data=['a.yaml', 'b.yaml']", "it trains on several data sets in turn"),
        ("epochs=2, device='0,1'", "it trains in 2 processes without torchrun"),
        ("epochs=2, device=[0, 1, 2]", "it trains in 3 processes without torchrun"),
    ],
)
def test_what_it_is_not_for_is_left_alone(script: Ultralytics, call: str, why: str) -> None:
    text = f"from ultralytics import YOLO\nYOLO().train({call})\n".replace("resume=True", "resume='last.pt'")
    (script.folder / "last.pt").write_text("1")
    printed, said = script.run(text, environment=script.environment() | {"BACKPROP_RESUME_FROM": ""})
    assert printed.startswith("trained with [] from")
    assert said == f"backprop: ultralytics is left alone: {why}\n"


def test_what_there_is_to_resume_from_may_be_anothers(script: Ultralytics) -> None:
    printed, said = script.run(TRAIN, environment=script.environment(BACKPROP_RESUME_FROM=str(script.folder)))
    assert printed == "trained with [] from None\n"
    assert "was not saved by the integration" in said


def test_a_version_that_is_not_tested_is_left_alone(script: Ultralytics) -> None:
    script.stub("8.3.9")
    _, said = script.run(TRAIN)
    assert said == "backprop: ultralytics is left alone: version 8.3.9 is not tested, 8.4 to below 8.5 is\n"
