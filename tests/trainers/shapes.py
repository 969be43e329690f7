"""Names the shapes, copies one into a folder with its pace, and reads what it did from the book that it kept."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.harness import ROOT

SCRIPTS: Final = Path(__file__).parent / "scripts"
STUB_TORCH: Final = ROOT / "tests" / "support" / "stub_torch"
STEP_S: Final = 0.1
# The scripts' own waits, and a book outside their folder: no sign of life, and no file that might be a checkpoint.
_PACE: Final = """\
import os, time
BOOK = {book!r}

def write_down(word):
    with open(BOOK, "a") as book:
        print(word, file=book)

def wait():
    time.sleep({step_s})

def start():
    write_down("begun")
    time.sleep({start_s})

def step(number):
    wait()
    write_down(number)

def end():
    time.sleep({end_s})
    write_down("done")
"""


@dataclass(frozen=True)
class Shape:
    """`command`: as its user types it. `goes_on`: how the line of `run` about it begins. `resumes`: its text says how
    it goes on from a checkpoint, so it is ended at its boxes."""

    command: tuple[str, ...]
    goes_on: str
    resumes: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How long its start-up and its final part take, how many steps there are, and how far apart it saves."""

    start_s: float = 0.0
    end_s: float = 0.0
    steps: int = 40
    every: int = 4


@dataclass(frozen=True)
class Book:
    """What a run did in all its segments: its starts, its steps in the order of their making, its ends; its files."""

    starts: int
    steps: tuple[int, ...]
    ends: int
    files: frozenset[str]

    @property
    def redone(self) -> int:
        return len(self.steps) - len(set(self.steps))


_RESUME: Final = "its --resume (PyTorch)"
_UNKNOWN: Final = "suspending it in place; after a reboot: nothing known"
_ITSELF: Final = "itself, from state/last.pt (PyTorch)"
SHAPES: Final = {
    "epoch files": Shape(("epoch_files.py",), _RESUME, resumes=True),
    "in place": Shape(("in_place.py",), _ITSELF, resumes=True),
    "in place, each step": Shape(("in_place.py",), _ITSELF, resumes=True, words=("--save-every", "1")),
    "best only": Shape(("best_only.py",), _UNKNOWN),
    "namespace": Shape(("namespace.py",), _RESUME, resumes=True),
    "imagenet": Shape(("imagenet_like.py",), _RESUME, resumes=True),
    "saver class": Shape(("saver_class.py",), _RESUME, resumes=True),
    "array folders": Shape(("array_folders.py",), _UNKNOWN),
    "booster": Shape(("booster.py",), _UNKNOWN),
    "shell": Shape(("sh", "steps.sh"), _UNKNOWN),
    "launcher": Shape(("launch.py", "epoch_files.py"), _UNKNOWN),
    "elastic launcher": Shape(("elastic.py", "ranks.py"), _UNKNOWN),
    "nothing": Shape(("saves_nothing.py",), _UNKNOWN),
    "final only": Shape(("final_only.py",), _UNKNOWN, words=("--save-model",)),
    "conditional": Shape(("conditional.py",), _RESUME, resumes=True),
    "trainer folders": Shape(("trainer_folders.py",), _UNKNOWN),
}


def prepare(shape: Shape, pace: Pace, folder: Path) -> tuple[str, ...]:
    """Copy what the shape needs into `folder`, its book beside it; the command to type there."""
    folder.mkdir(parents=True)
    for script in SCRIPTS.iterdir():
        if script.is_file():
            shutil.copy(script, folder)
    text = _PACE.format(book=str(_book(folder)), step_s=STEP_S, start_s=pace.start_s, end_s=pace.end_s)
    (folder / "pace.py").write_text(text)
    return (*shape.command, "--epochs", str(pace.steps), "--save-every", str(pace.every), *shape.words)


def read(folder: Path) -> Book:
    """What was done in `folder`, and which files lie there now beside what was copied."""
    words = _book(folder).read_text().split() if _book(folder).exists() else []
    copied = {script.name for script in SCRIPTS.iterdir()} | {"pace.py"}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return Book(
        words.count("begun"),
        tuple(int(word) for word in words if re.fullmatch(r"\d+", word)),
        words.count("done"),
        frozenset(name for name in files if name not in copied and "__pycache__" not in name),
    )


def _book(folder: Path) -> Path:
    return folder.with_name(folder.name + ".book")
