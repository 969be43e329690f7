"""`run --keep-checkpoints N`: older checkpoints go once newer ones are good, and nothing else ever does."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.support.harness import Bench, wait_until

SAVES = """
    import json, os, pathlib, pickle, sys, time
    out = pathlib.Path(sys.argv[1])
    out.mkdir(exist_ok=True)
    begin = int(os.environ.get("BACKPROP_RESUME_FROM", "step-0").rpartition("-")[2].partition(".")[0])
    # Falling, so that the newest is the best; unless the third is to be.
    losses = {3: 0.01} if "best" in sys.argv else {}
    for step in range(begin + 1, int(sys.argv[2]) + 1):
        print(json.dumps({"event": "progress", "step": step, "loss": losses.get(step, 1 / step)}), flush=True)
        time.sleep(0.05)
        path = out / f"step-{step}"
        if "folders" in sys.argv:
            path.mkdir()
            (path / "weights.pkl").write_bytes(pickle.dumps([step] * 9))
        else:
            path = path.with_suffix(".pkl")
            path.write_bytes(pickle.dumps([step] * 9))
        print(json.dumps({"event": "checkpoint_saved", "path": str(path), "step": step}), flush=True)
        time.sleep(5.2 if step == 3 and "best" in sys.argv else 1.1)  # of each five seconds the last value is kept
"""


def saved(bench: Bench, folder: str = "out") -> list[str]:
    return sorted(path.name for path in (bench.project / folder).iterdir())


@pytest.mark.parametrize("kind", ["files", "folders"])
def test_the_newest_and_the_best_stay(bench: Bench, kind: str) -> None:
    bench.script("saves.py", SAVES)
    (bench.project / "out").mkdir()
    for name in ("step-0.pkl", "best.pkl", "notes.txt"):
        (bench.project / "out" / name).write_bytes(b"the user's own")
    run = bench.queue("saves.py", "--keep-checkpoints", "2", "--", "out", "6", kind, "best")
    bench.worker()
    bench.wait_for(run, "completed")
    end = ".pkl" if kind == "files" else ""
    stay = {"best.pkl", "notes.txt", "step-0.pkl", *(f"step-{n}{end}" for n in (3, 5, 6))}
    wait_until(lambda: f"step-1{end}" not in saved(bench), saw=lambda: saved(bench))
    assert stay <= set(saved(bench))
    wait_until(lambda: [one for one in bench.show(run)["checkpoints"] if one["refused"] is not None])
    gone = [one for one in bench.show(run)["checkpoints"] if one["refused"] is not None]
    assert f"step-1{end}" in {Path(one["path"]).name for one in gone}
    assert all(one["refused"] == "removed, as --keep-checkpoints 2 says" for one in gone)


def test_a_rehearsal_removes_nothing_and_says_what_would_go(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    run = bench.queue("saves.py", "--", "out", "6", "files", "best")
    bench.worker()
    bench.wait_for(run, "completed")
    done = bench.backprop("show", run, "--keep", "2", "--json")
    told = json.loads(done.stdout)["rotation"]
    assert (told["newest"], told["metric"], told["highest"]) == (2, "loss", False)
    stays = {Path(one["path"]).name: one["stays"] for one in told["checkpoints"]}
    assert stays["step-6.pkl"] == stays["step-5.pkl"] == "one of the newest 2"
    assert stays["step-3.pkl"] == "best by loss"
    assert stays["step-1.pkl"] is None
    assert "would be removed" in bench.backprop("show", run, "--keep", "2").stdout
    assert len(saved(bench)) == 6
    assert bench.show(run)["rotation"] is None


@pytest.mark.parametrize("point", ["looked", "moved", "judged", "deleted"])
def test_a_worker_killed_meanwhile_is_gone_on_from(bench: Bench, point: str) -> None:
    bench.script("saves.py", SAVES)
    run = bench.queue("saves.py", "--keep-checkpoints", "2", "--", "out", "4", "folders")
    worker = bench.worker(env={"BACKPROP_FAILPOINT": f"rotation {point}:kill"})
    worker.wait(timeout=60)
    whole = [name for name in saved(bench) if not name.startswith(".")]
    assert {"step-2", "step-3"} <= set(whole), "fewer good ones than asked for"
    bench.worker()
    bench.wait_for(run, "completed")
    wait_until(lambda: "step-1" not in saved(bench) and not any(name[0] == "." for name in saved(bench)))
    assert {"step-3", "step-4"} <= set(saved(bench))


def test_what_cannot_be_removed_is_said_and_tried_again(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    run = bench.queue("saves.py", "--keep-checkpoints", "1", "--", "out", "6", "files")
    held = bench.project / "out" / "step-1.pkl"
    bench.worker()
    wait_until(held.exists)
    with held.open("rb"):
        wait_until(lambda: f"{held} is not removed: a process has it open; tried again" in bench.output())
        assert held.exists()
    bench.wait_for(run, "completed")
    wait_until(lambda: not held.exists(), saw=bench.output)


def test_what_another_run_needs_stays(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    bench.script("eval.py", "print('evaluated')\n")
    run = bench.queue("saves.py", "--keep-checkpoints", "1", "--", "out", "6", "files")
    bench.queue("eval.py", "--hold", "--", "--ckpt", "out/step-1.pkl")
    bench.worker()
    bench.wait_for(run, "completed")
    wait_until(lambda: "step-3.pkl" not in saved(bench), saw=lambda: saved(bench))
    assert "step-1.pkl" in saved(bench)


def test_a_project_file_cannot_have_files_removed(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    (bench.project / "backprop.config.json").write_text('{"keepCheckpoints": 1}')
    done = bench.backprop("run", "saves.py")
    assert done.returncode == 5
    assert "keepCheckpoints may not be set by a project file" in done.stderr


def test_without_the_option_nothing_is_removed(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    run = bench.queue("saves.py", "--", "out", "4", "files")
    bench.worker()
    bench.wait_for(run, "completed")
    with sqlite3.connect(bench.home / "backprop.db") as database:
        assert "keep_checkpoints" not in database.execute("SELECT spec FROM runs").fetchone()[0]
    assert len(saved(bench)) == 4
