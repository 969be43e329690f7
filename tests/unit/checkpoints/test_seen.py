"""What is seen of a run's saves: where it looks, what it takes for one, and who may have written it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.seen.evidence import seen_of
from backprop.worker.checkpoints.seen.finder import Finder
from backprop.worker.checkpoints.seen.looks_like import is_checkpoint_folder, may_be_checkpoint
from backprop.worker.checkpoints.seen.places import Places, elsewhere, fixed_files, places_of
from backprop.worker.checkpoints.seen.witness import Witness
from backprop.worker.checkpoints.validation import CheckpointFile, measure
from backprop.worker.clock import steady_s
from tests.support.harness import wait_until
from tests.support.store_rows import SPEC
from tests.support.unannounced_run import zip_bytes

MIB = 1024 * 1024


def spec(*argv: str, cwd: str = "/p", plan: Plan | None = None) -> RunSpec:
    return msgspec.structs.replace(SPEC, argv=("python", "train.py", *argv), cwd=cwd, plan=plan)


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("ckpt.pt", "out", True),
        ("epoch=3-step=400.ckpt", "x", True),
        ("model.safetensors", "x", True),
        ("checkpoint.pth.tar", "x", True),
        ("last.npz", "x", True),
        ("7.pkl", "checkpoints", True),
        ("state.json", "x", True),
        ("optimizer.pt", "out", False),
        ("training_args.bin", "out", False),
        ("train.pt", "processed", False),
        ("features.h5", "x", False),
        ("tokens.npz", "x", False),
        ("train.log", "checkpoints", False),
        ("config.json", "checkpoints", False),
    ],
)
def test_a_name_tells_what_is_looked_at(name: str, folder: str, expected: bool) -> None:
    assert may_be_checkpoint(name, folder) is expected


def test_a_folder_of_parts_is_one_checkpoint() -> None:
    assert is_checkpoint_folder({"trainer_state.json", "optimizer.pt", "model.safetensors"})
    assert is_checkpoint_folder({"_CHECKPOINT_METADATA", "d"})
    assert is_checkpoint_folder({".metadata", "__0_0.distcp", "__1_0.distcp"})
    assert not is_checkpoint_folder({"last.pt", "best.pt"})


@pytest.mark.parametrize(
    ("path", "first", "second", "away"),
    [
        ("/p/runs/a/last.pt", ("--out", "runs/a"), ("--out=runs/b",), {"b"}),
        ("/p/out/a-100.pt", ("--save", "out/a"), ("--save", "out/b"), {"b"}),
        ("/p/out/last.pt", ("--out", "out"), (), set[str]()),
        ("/p/out/1/last.pt", ("--seed", "1"), ("--seed", "2"), set[str]()),
        ("/p/1/last.pt", ("--seed", "1"), ("--seed", "2"), set[str]()),
        ("/p/x.pt", ("x.pt",), ("y.pt",), {"b"}),
    ],
)
def test_the_same_argument_tells_two_runs_apart(
    path: str, first: tuple[str, ...], second: tuple[str, ...], away: set[str]
) -> None:
    """A place that only one of them names tells nothing: the other may use it by default."""
    places = {"a": places_of(spec(*first), {}), "b": places_of(spec(*second), {})}
    assert elsewhere((path,), places) == away


def test_variables_and_patterns_tell_two_runs_apart() -> None:
    by_variable = {run: places_of(spec(), {"OUT_DIR": f"/d/{run}", "OLDPWD": "/d"}) for run in ("a", "b")}
    assert elsewhere(("/d/a/last.pt",), by_variable) == {"b"}
    by_plan = {run: places_of(spec(plan=Plan(globs=(f"/p/{run}/*.pt",))), {}) for run in ("a", "b")}
    assert elsewhere(("/p/a/last.pt",), by_plan) == {"b"}


def test_the_text_of_one_script_tells_two_runs_of_it_apart() -> None:
    """Two that save in lockstep: nothing but the name that each of them makes up differs."""

    def saying(script: str, *patterns: str) -> Places:
        of = msgspec.structs.replace(spec(plan=Plan(expects=patterns)), script=script)
        return places_of(of, {})

    of_one = {run: saying("/p/t.py", f"/p/out/lr{run}/ckpt.pt", "/p/log-*.txt") for run in ("0.1", "0.2")}
    assert elsewhere(("/p/out/lr0.1/ckpt.pt",), of_one) == {"0.2"}
    assert elsewhere(("/p/out/other.pt",), of_one) == set()
    assert elsewhere(("/p/log-1.txt",), of_one) == set(), "both may have written that"
    of_two = {"a": saying("/p/t.py", "/p/out/a.pt"), "b": saying("/p/u.py", "/p/out/b.pt")}
    assert elsewhere(("/p/out/a.pt",), of_two) == set(), "another script may save anywhere"


@pytest.mark.parametrize(
    ("pattern", "step", "fixed"),
    [
        ("/p/out/ckpt.pt", None, True),
        ("/p/[[]x]/ckpt.pt", None, True),
        ("/p/out/checkpoint-*", r"(\d+)", True),
        ("/p/checkpoint-*", r"(\d+)", False),
        ("/p/out/*.pt", None, False),
        ("/p/lr*/ckpt.pt", None, False),
    ],
)
def test_only_a_pattern_without_an_open_part_means_the_same_file(
    pattern: str, step: str | None, fixed: bool
) -> None:
    assert bool(fixed_files(spec(plan=Plan(globs=(pattern,), step_pattern=step)))) is fixed


def test_it_is_found_in_folders_behind_links_and_where_the_processes_are(tmp_path: Path) -> None:
    cwd, disk, away, data = (tmp_path / name for name in ("cwd", "disk", "away", "named"))
    for folder in (cwd / "a" / "b", disk, away / "deep", data, cwd / "wandb", cwd / "home"):
        folder.mkdir(parents=True)
    (cwd / "checkpoints").symlink_to(disk)
    (cwd / "round").symlink_to(cwd)
    wanted = [cwd / "a" / "b" / "last.pt", disk / "ckpt.pt", away / "deep" / "ckpt.pt", data / "model.pt"]
    for path in (*wanted, cwd / "wandb" / "model.pt", cwd / "home" / "model.pt", cwd / "notes.txt"):
        path.write_bytes(zip_bytes())
    old = cwd / "old.pt"
    old.write_bytes(zip_bytes())
    os.utime(old, (1, 1))
    finder = Finder(
        spec("--out", str(data), "--data", str(tmp_path), cwd=str(cwd)),
        dict[str, str],
        Beginning(time.time()),
        cwd / "home",
        lambda: [str(away)],
    )
    assert finder.finish()
    assert {os.path.realpath(path) for path in finder.found} == {str(path) for path in wanted}


def test_a_great_tree_is_gone_through_in_short_steps(tmp_path: Path) -> None:
    for number in range(400):
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        (folder / "x.txt").touch()
    (tmp_path / "399" / "last.pt").write_bytes(zip_bytes())
    finder = Finder(spec(cwd=str(tmp_path)), dict[str, str], Beginning(time.time()), tmp_path / "none", list)
    steps = 1
    while not finder.step(within_s=0.0):
        steps += 1
    assert steps > 100
    assert list(finder.found) == [str(tmp_path / "399" / "last.pt")]


WRITER = """
import os, sys
for line in sys.stdin:
    name, size = line.split()
    with open(name + ".tmp", "wb") as file:
        file.write(b"x" * int(size))
        print("written", flush=True)
        sys.stdin.readline()
    os.replace(name + ".tmp", name)
    print("done", flush=True)
"""


class Writer:
    """A run of one process that writes when it is told to."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measured(path: Path) -> CheckpointFile:
    file = measure(path)
    assert isinstance(file, CheckpointFile)
    return file


@pytest.mark.parametrize("off_s", [0, -30, 3600])
def test_the_writer_is_known_by_what_it_holds_open_and_by_the_bytes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    """The wall clock is set before the save."""
    writers = {run: Writer(run) for run in ("a", "b")}
    witness = Witness(lambda run, _: frozenset({writers[run].process.pid}), tmp_path / "home")
    path = tmp_path / "last.pt"
    try:
        witness.follow((run, 1, time.time()) for run in writers)
        witness.look(at_once=True)
        true_s = time.time
        monkeypatch.setattr(time, "time", lambda: true_s() + off_s)
        writers["a"].say(f"{path} {MIB}")
        witness.look(at_once=True)
        writers["a"].say("")
        wait_until(lambda: path.exists())
        witness.look(at_once=True)
        time.sleep(0.1)
        witness.look(at_once=True)
        os.utime(path, (path.stat().st_mtime + off_s,) * 2)
        known = seen_of(witness, measured(path), steady_s(), changed_in_place=False)
        assert known.from_s <= path.stat().st_mtime <= known.to_s
        assert known.opened == {"a"}, "the name before the rename counts, by its inode"
        assert (known.idle, known.busy) == ({"b"}, {"a"})
        assert witness.folders(("b", 1)) == {os.getcwd()}  # noqa: PTH109
        writers["b"].close()
        witness.look(at_once=True)
        assert witness.written("b", steady_s() - 0.01, steady_s()) is None, "what it wrote last is unknown"
    finally:
        witness.follow(())
        for writer in writers.values():
            writer.close()
