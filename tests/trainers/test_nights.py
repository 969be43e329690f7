"""Each shape of a public training script ends as it does without interruption, whatever its boxes are too short for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import QUIET_LIMITS, Bench
from tests.trainers.shapes import SHAPES, STUB_TORCH, Book, Pace, prepare, read

BOX: tuple[str, ...] = ("-m", "0.05")
"""Three seconds."""
FRESH_STEPS = 100
"""Ten seconds: so long an end is safe after a save."""
ENDS = ("completed", "failed", "timeboxed", "held", "stopped", "lost")
PACES = {
    "a box shorter than its start-up": Pace(start_s=4.0, steps=70, every=10),
    "a box shorter than its save interval": Pace(steps=105, every=35),
    "a box shorter than its final part": Pace(end_s=4.0, steps=70, every=10),
}
QUEUES = tuple(tuple(list(SHAPES)[at : at + 4]) for at in range(0, len(SHAPES), 4))


def alone(name: str, pace: Pace, folder: Path) -> Book:
    """Run the shape without Backprop, and without its waits."""
    command = prepare(SHAPES[name], Pace(steps=pace.steps, every=pace.every), folder)
    text = (folder / "pace.py").read_text().replace("time.sleep(", "(")
    (folder / "pace.py").write_text(text)
    program = [sys.executable] if command[0].endswith(".py") else []
    environment = os.environ | {
        "PYTHONPATH": str(STUB_TORCH),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(
        [*program, *command], cwd=folder, env=environment, check=True, capture_output=True, timeout=60
    )
    return read(folder)


def queue(bench: Bench, name: str, pace: Pace) -> tuple[str, str, Path]:
    """Queue the shape in a folder of its own: the run's id, how `run` said that it goes on, the folder."""
    folder = bench.project / name.replace(" ", "_")
    program, *arguments = prepare(SHAPES[name], pace, folder)
    bench.environment["PYTHONPATH"] = str(STUB_TORCH)
    done = bench.backprop("run", *QUIET_LIMITS, *BOX, program, "--", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    told = next((line for line in done.stderr.splitlines() if line.startswith("goes on by: ")), "")
    run = next(one["id"] for one in bench.runs() if one["cwd"] == str(folder))
    return run, told.removeprefix("goes on by: "), folder


def check(bench: Bench, name: str, run: str, told: str, folder: Path, whole: Book, pace: Pace) -> str:
    """Assert that the run came to its own end with nothing lost; one line of figures."""
    shape, seen = SHAPES[name], bench.show(run)
    book, segments = read(folder), seen["segments"]
    story = f"{name}: {told} {_chain(seen)} {seen['reason']} {book}\n{bench.output()}\n{bench.log(run, len(segments))}"
    assert told.startswith(shape.goes_on), story
    assert seen["state"] == "completed", story
    assert set(book.steps) == set(whole.steps) == set(range(1, pace.steps + 1)), story
    assert book.files == whole.files, (sorted(book.files ^ whole.files), story)
    assert book.steps[-1] == pace.steps, story
    assert book.ends == 1, story
    assert book.starts == len(segments), story
    if shape.resumes:
        # So much is made again, or one interval.
        assert book.redone <= (len(segments) - 1) * max(pace.every, FRESH_STEPS), story
    else:
        assert len(segments) == 1, story
        assert book.redone == 0, story
    return f"{name}: {len(segments)} segments, {seen['boxes']} boxes, {book.redone} steps redone"


def _chain(seen: dict[str, Any]) -> list[tuple[str, int, Any]]:
    return [(one["outcome"], one["boxes"], one["checkpoint_used"]) for one in seen["segments"]]


def night(bench: Bench, tmp_path: Path, names: tuple[str, ...], pace: Pace) -> list[str]:
    """Queue the shapes, let one worker take them one at a time, and check each."""
    wholes = [alone(name, pace, tmp_path / "alone" / name.replace(" ", "_")) for name in names]
    queued = [queue(bench, name, pace) for name in names]
    bench.worker("-p", "1", "--drain")
    for run, _, _ in queued:
        bench.wait_for(run, *ENDS, timeout_s=400)
    return [
        check(bench, name, run, told, folder, whole, pace)
        for name, (run, told, folder), whole in zip(names, queued, wholes, strict=True)
    ]


def test_two_that_resume_and_two_that_do_not_share_a_queue(bench: Bench, tmp_path: Path) -> None:
    """Both kinds of waits at once: a start-up and a final part, each longer than half a box."""
    night(bench, tmp_path, ("namespace", "elastic launcher"), Pace(start_s=2.0, end_s=2.0, steps=25))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("name", SHAPES)
def test_alone(bench: Bench, tmp_path: Path, name: str, pace: str) -> None:
    print(pace, *night(bench, tmp_path, (name,), PACES[pace]), bench.output(), sep="\n")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("names", QUEUES, ids=", ".join)
def test_in_a_queue_of_four(bench: Bench, tmp_path: Path, names: tuple[str, ...], pace: str) -> None:
    print(pace, *night(bench, tmp_path, names, PACES[pace]), sep="\n")
