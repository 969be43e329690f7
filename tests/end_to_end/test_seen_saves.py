"""Scripts that say nothing of their checkpoints and fit no recipe: what they write is seen, and handed back."""

import shutil
from pathlib import Path

import pytest

from tests.support.harness import Bench, wait_until

SAVES = """
    import json, os, pickle, sys, time
    name, shape, every, at = sys.argv[1], sys.argv[2], int(sys.argv[4]), 0
    if "--load" in sys.argv:
        with open(sys.argv[sys.argv.index("--load") + 1], "rb") as file:
            saved = pickle.load(file)
        assert saved["name"] == name, f"{name} was given the work of {saved['name']}"
        at = saved["at"]
    print("begins at", at, flush=True)
    place = {
        "float": f"out/lr{float('1e-3')}-{name}",
        "settings": json.load(open("settings.json"))["out"] if os.path.exists("settings.json") else "",
        "environment": os.environ.get("OUT_DIR", ""),
        "chdir": "deep",
        "link": "checkpoints",
        "rename": "renamed",
        "shared": "shared",
    }[shape]
    os.makedirs(place, exist_ok=True)
    if shape == "chdir":
        os.chdir(place)
        place = "."
    path = f"{place}/{name}.pt" if shape in ("shared", "link") else f"{place}/model_last.pkl"
    while at < int(sys.argv[3]):
        at += 1
        time.sleep(0.08 + 0.01 * (len(name) % 4))
        if at % every == 0:
            draft = path + ".tmp" if shape == "rename" else path
            with open(draft, "wb") as file:
                pickle.dump({"name": name, "at": at, "weights": os.urandom(300_000)}, file)
            if shape == "rename":
                os.replace(draft, path)
    print("done", flush=True)
"""


def test_what_it_wrote_is_named_and_a_resume_with_words_goes_on_from_it(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    run = bench.queue("saves.py", "-m", "0.1", "--at-timebox", "end", "--", "one", "float", "80", "20")
    worker = bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert seen["reason"].startswith("no option to resume: it wrote out/lr0.001-one/model_last.pkl"), seen[
        "reason"
    ]
    assert f"backprop resume {run} --resume-arg '--load {{checkpoint}}'" in seen["reason"]
    saved = [one for one in bench.show(run)["checkpoints"] if one["refused"] is None]
    assert [Path(one["path"]).name for one in saved[:1]] == ["model_last.pkl"]
    bench.end_worker(worker)
    shutil.rmtree(bench.home / "backups", ignore_errors=True)
    for file in bench.home.glob("backprop.db*"):
        file.unlink()
    bench.worker()
    wait_until(lambda: bench.backprop("show", run).returncode == 0)
    found = [one["path"] for one in bench.show(run)["checkpoints"] if one["refused"] is None]
    assert found == [one["path"] for one in saved], "the database was lost"
    bench.backprop("resume", run, "--resume-arg", "--load {checkpoint}")
    seen = bench.wait_for(run, "completed", "failed", "timeboxed")
    assert seen["state"] == "completed", seen["reason"]
    assert "begins at 0\n" not in bench.log(run, 2)


@pytest.mark.long
def test_wherever_it_saves_each_goes_on_from_its_own(bench: Bench, tmp_path: Path) -> None:
    """All in one directory and at once: folders by a float, by settings, by the environment, behind a link, after a
    change of directory; by a rename; two with different names in one folder."""
    bench.script("saves.py", SAVES)
    elsewhere = [tmp_path / "disk" / name for name in ("environment", "link")]
    for folder in elsewhere:
        folder.mkdir(parents=True)
    (bench.project / "settings.json").write_text('{"out": "runs/of/settings"}')
    (bench.project / "checkpoints").symlink_to(elsewhere[1])
    bench.environment["OUT_DIR"] = str(elsewhere[0])
    shapes = ("float", "settings", "environment", "chdir", "link", "rename", "shared", "shared")
    plan = ("-m", "0.25", "--at-timebox", "end", "--resume-arg", "--load {checkpoint}")
    runs = [
        bench.queue("saves.py", *plan, "--", "n" * at + shape, shape, "260", "40")
        for at, shape in enumerate(shapes, 1)
    ]
    bench.worker("-p", "4")
    for run in runs:
        seen = bench.wait_for(run, "completed", "failed", "timeboxed", "held", timeout_s=120)
        assert seen["state"] == "completed", (seen["command"], seen["reason"])
        assert seen["segment_count"] >= 2


OWN_OPTION = """
    import argparse, os, pickle, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume", default=None, help="checkpoint to resume from")
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    epoch = 0
    if given.resume:
        state = pickle.load(open(given.resume, "rb"))
        epoch = state["epoch"]{forgets}
        print("resumed at", epoch, flush=True)
    os.makedirs("deep/work", exist_ok=True)
    while epoch < given.epochs:
        epoch += 1
        time.sleep(0.8)
        print(f"Epoch {{epoch}}/{{given.epochs}} loss {{1 / epoch:.3f}}", flush=True)
        with open(f"deep/work/state_{{epoch}}.pkl", "wb") as file:
            pickle.dump({{"epoch": epoch, "weights": os.urandom(20_000)}}, file)
"""


def test_an_option_of_its_own_is_given_what_the_script_is_seen_to_save(bench: Bench) -> None:
    bench.script("train.py", OWN_OPTION.format(forgets=""))
    run = bench.queue("train.py", "-m", "0.08")
    assert (
        bench.show(run)["goes_on_by"]["text"] == "its --resume, given the newest file that it is seen to save"
    )
    bench.worker()
    seen = bench.wait_for(run, "completed", "failed", "timeboxed", "held", timeout_s=50)
    assert (seen["state"], seen["segment_count"] >= 2) == ("completed", True), seen["reason"]
    assert "resumed at" in bench.log(run, 2)
    assert "resumed at 0\n" not in bench.log(run, 2)


def test_one_that_starts_over_with_it_is_left_alone(bench: Bench) -> None:
    bench.script("train.py", OWN_OPTION.format(forgets=" * 0"))
    run = bench.queue("train.py", "-m", "0.08")
    bench.worker()
    seen = bench.wait_for(run, "completed", "failed", "timeboxed", "held", timeout_s=50)
    assert (seen["state"], seen["segment_count"]) == ("completed", 2), seen["reason"]
    assert seen["boxes"] >= 3, "the second segment went through its boxes"
    assert "it started over: its epochs began again at 1" in bench.output()
