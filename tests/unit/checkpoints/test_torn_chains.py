"""Chains of real runs whose checkpoint was torn, or whose database was lost."""

import signal

from backprop.worker.checkpoints import copying
from backprop.worker.checkpoints.backups import backups_of
from tests.support.harness import Bench, wait_until

IN_PLACE = """
    import os, time, zipfile
    def whole(step):
        with zipfile.ZipFile("out/ckpt.npz", "w") as archive:
            archive.writestr("step", str(step))
            archive.writestr("weights", b"w" * 5000)
    os.makedirs("out", exist_ok=True)
    step = 0
    if os.path.exists("out/ckpt.npz"):
        step = int(zipfile.ZipFile("out/ckpt.npz").read("step"))
    print("begins at", step, flush=True)
    while step < 3:
        step += 1
        whole(step)
        if step == 2 and not os.path.exists("torn"):
            open("torn", "w").close()
            data = open("out/ckpt.npz", "rb").read()
            open("out/ckpt.npz", "wb").write(data[: len(data) // 2])
            print("torn", flush=True)
            time.sleep(600)
        while not os.path.exists(f"go-{step}"):
            time.sleep(0.05)
    print("done")
"""


def test_a_file_torn_in_place_is_restored_and_the_chain_goes_on(bench: Bench) -> None:
    bench.script("train.py", IN_PLACE)
    words = ("--checkpoint-glob", "out/ckpt.npz", "--resume-arg", "none")
    run = bench.queue("train.py", *words, "--grace-seconds", "1")
    first = bench.worker()
    folder = bench.home / "runs" / run / "kept"
    wait_until((folder / "1-1" / "source.json").exists, saw=bench.output)
    (bench.project / "go-1").touch()
    bench.wait_for_log(run, "torn")
    bench.end_worker(first, signal.SIGTERM)
    for step in (2, 3):
        (bench.project / f"go-{step}").touch()
    bench.worker()
    bench.wait_for(run, "completed")
    assert "begins at 1" in bench.log(run, 2)
    assert "repaired" in bench.output(1)
    assert "is restored; what was there is renamed ckpt.npz.torn-1" in bench.output(1)
    assert sorted(one.name for one in (bench.project / "out").iterdir()) == ["ckpt.npz", "ckpt.npz.torn-1"]
    wait_until(lambda: not backups_of(folder.parent), saw=lambda: list(folder.iterdir()))


CHOOSES = """
    import os, time, zipfile
    os.makedirs("out", exist_ok=True)
    saved = [int(name.split("-")[1]) for name in os.listdir("out") if name.startswith("checkpoint-")]
    step = max(saved, default=0)
    if step:
        assert zipfile.ZipFile(f"out/checkpoint-{step}/model.npz").read("step") == str(step).encode()
    print("begins at", step, flush=True)
    while step < 4:
        step += 1
        os.mkdir(f"out/checkpoint-{step}")
        with zipfile.ZipFile(f"out/checkpoint-{step}/model.npz", "w") as archive:
            archive.writestr("step", str(step))
            archive.writestr("weights", b"w" * 5000)
        if step == 3 and not os.path.exists("torn"):
            open("torn", "w").close()
            os.truncate(f"out/checkpoint-{step}/model.npz", 2000)
            print("torn", flush=True)
            time.sleep(600)
"""


def test_a_script_that_takes_its_newest_checkpoint_is_kept_from_a_torn_one(bench: Bench) -> None:
    bench.script("train.py", CHOOSES)
    words = ("--checkpoint-glob", "out/checkpoint-*", "--resume-arg", "none")
    run = bench.queue("train.py", *words, "--grace-seconds", "1")
    first = bench.worker()
    bench.wait_for_log(run, "torn")
    bench.end_worker(first, signal.SIGTERM)
    bench.worker()
    bench.wait_for(run, "completed")
    assert "begins at 2" in bench.log(run, 2)
    assert "renamed torn-1-checkpoint-3" in bench.output(1)
    left = sorted(one.name for one in (bench.project / "out").iterdir())
    assert left == [*(f"checkpoint-{step}" for step in range(1, 5)), "torn-1-checkpoint-3"]


SLOW = """
    import argparse, os, pickle, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--load")
    options = parser.parse_args()
    step = pickle.load(open(options.load, "rb")) if options.load else 0
    print("begins at", step, flush=True)
    os.makedirs("out", exist_ok=True)
    while step < 100 and not os.path.exists("finish"):
        time.sleep(0.05)
        step += 1
        with open("out/draft", "wb") as file:
            pickle.dump(step, file)
        os.replace("out/draft", f"out/model-{step}.pkl")
"""


def test_a_lost_database_does_not_send_a_silent_script_back_to_zero(bench: Bench) -> None:
    """What was seen from outside is in no log, so it has to be seen again."""
    bench.script("train.py", SLOW)
    words = ("--checkpoint-glob", "out/model-*.pkl", "--resume-arg", "--load {checkpoint}")
    run = bench.queue("train.py", "-m", "0.02", "--at-timebox", "end", *words)
    first = bench.worker()
    wait_until(lambda: bench.column(run, "segment") == 2, saw=bench.output)
    bench.end_worker(first, signal.SIGTERM)
    for name in ("backprop.db", "backups"):
        path = bench.home / name
        copying.remove(path)
    last = max(int(one.name) for one in (bench.home / "runs" / run).iterdir() if one.name.isdecimal())
    bench.worker()
    wait_until(lambda: "begins at" in bench.log(run, last + 1), saw=lambda: bench.output(1))
    assert "begins at 0" not in bench.log(run, last + 1)
    (bench.project / "finish").touch()
    bench.wait_for(run, "completed")
