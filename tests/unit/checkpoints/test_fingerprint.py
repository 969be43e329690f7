"""A script that saves as it starts has done nothing yet."""

import zipfile
from pathlib import Path

import pytest

from backprop.worker.checkpoints.fingerprint import contents, holds_the_same
from tests.support.harness import Bench

NANOGPT = """
    import os, sys, time, zipfile
    init_from, out_dir = "scratch", "out"
    if "--init_from=resume" in sys.argv:
        init_from = "resume"
    os.makedirs(out_dir, exist_ok=True)
    path = os.path.join(out_dir, "ckpt.pt")
    if init_from == "resume":
        step = int(zipfile.ZipFile(path).read("ckpt/data/0"))
    else:
        step = 0
    while step < 9:
        if step % 3 == 0:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("ckpt/data.pkl", repr(time.time()))
                archive.writestr("ckpt/data/0", str(step))
        time.sleep(STEP_S)
        step += 1
        print("iter", step)
"""


def save(path: Path, tensors: bytes, other: bytes = b"") -> Path:
    """As torch.save lays a file out."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", other)
        archive.writestr(f"{path.stem}/data/0", tensors)
        archive.writestr(f"{path.stem}/version", "3")
    return path


def test_the_tensors_decide_not_what_lies_beside_them(tmp_path: Path) -> None:
    resumed = contents(save(tmp_path / "ckpt.pt", b"weights", b"best loss 3.1"))

    assert holds_the_same(save(tmp_path / "again.pt", b"weights", b"best loss 3.0"), resumed)
    assert not holds_the_same(save(tmp_path / "later.pt", b"trained", b"best loss 3.1"), resumed)


def test_of_what_is_no_zip_of_tensors_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("weights")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes", "weights")

    for name in ("text.pt", "other.zip", "gone.pt"):
        assert contents(tmp_path / name) is None
        assert not holds_the_same(tmp_path / name, contents(tmp_path / name))


def test_what_was_written_since_is_not_what_was_resumed_from(tmp_path: Path) -> None:
    path = save(tmp_path / "ckpt.pt", b"weights")
    saved_s = path.stat().st_mtime
    assert contents(path, lambda info: info.st_mtime < saved_s) is None
    assert contents(path, lambda info: info.st_mtime < saved_s + 1) is not None


@pytest.mark.parametrize(("step_s", "state"), [(0.6, "completed"), (30.0, "timeboxed")])
def test_a_chain_that_never_gets_to_its_next_save_ends(bench: Bench, step_s: float, state: str) -> None:
    bench.script("train.py", NANOGPT.replace("STEP_S", str(step_s)))
    run = bench.queue(
        "train.py", "-m", "0.04", "--at-timebox", "end", "--max-segments", "12", "--grace-seconds", "1"
    )
    bench.worker("--drain")

    seen = bench.wait_for(run, "completed", "timeboxed", "failed", timeout_s=90)

    assert seen["state"] == state, bench.output()
    assert 1 < len(seen["segments"]) < 12, bench.output()
