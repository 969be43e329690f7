"""`backprop drill`: does a script resume, and what does a restart cost? Real scripts, run, stopped and resumed."""

import json
import os
import signal
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backprop.cli.drill.costs import BOXES_MIN, FINE_SHARE, Costs, lost_share, recommended_min
from backprop.cli.drill.verdict import DrillSegment, Proof, judge
from backprop.worker.progress.steps import StepTrace
from tests.support.harness import COMMAND, QUIET_LIMITS, ROOT, Bench, wait_until

DIGITS = str(ROOT / "examples" / "digits.py")


def steps(*reported: int) -> StepTrace:
    told = StepTrace()
    for step in reported:
        told.take(step)
    return told


FIRST = DrillSegment(outcome="timeboxed", reason="timebox reached", saved=2, steps={"reported": steps(1, 90)})
SECOND = DrillSegment(
    outcome="timeboxed", reason="", used="c", used_step=80, steps={"reported": steps(81, 170)}
)


@pytest.mark.parametrize(
    ("parts", "proof", "told"),
    [
        ((FIRST, SECOND), Proof.CHAINABLE, "saved at step 80, resumed at step 81"),
        ((FIRST, replace(SECOND, outcome="completed")), Proof.CHAINABLE, "resumed at"),
        ((FIRST, replace(SECOND, steps={"reported": steps(1, 90)})), Proof.NOT_CHAINABLE, "it started over"),
        ((FIRST, replace(SECOND, outcome="started over", reason="why")), Proof.NOT_CHAINABLE, "why"),
        (
            (FIRST, replace(SECOND, outcome="failed", reason="exited 1: no file")),
            Proof.NOT_CHAINABLE,
            "no file",
        ),
        ((replace(FIRST, saved=0),), Proof.RENEWED, "saved no checkpoint"),
        ((replace(FIRST, saved=0, refused=("a: empty",)),), Proof.RENEWED, "a: empty"),
        ((replace(FIRST, outcome="failed", reason="exited 1"),), Proof.NOT_CHAINABLE, "exited 1"),
        ((replace(FIRST, outcome="completed"),), Proof.UNPROVEN, "nothing to resume"),
        ((FIRST,), Proof.RENEWED, "it was not resumed: the reason"),
        ((), Proof.NOT_CHAINABLE, "could not start: the reason"),
        ((replace(FIRST, steps={}), replace(SECOND, steps={})), Proof.UNPROVEN, "may have resumed or not"),
        ((replace(FIRST, steps={}), replace(SECOND, steps={}, outcome="completed")), Proof.CHAINABLE, "end"),
    ],
)
def test_what_two_segments_prove(parts: tuple[DrillSegment, ...], proof: Proof, told: str) -> None:
    verdict = judge(parts, "the reason", (), 20)
    assert verdict.proof is proof
    assert told in verdict.why


def test_a_checkpoint_that_is_not_whole_is_no_checkpoint() -> None:
    verdict = judge((FIRST, SECOND), "", ("last.pt: no end of the zip",), 20)
    assert verdict.proof is Proof.NOT_CHAINABLE
    assert "last.pt" in verdict.why


@pytest.mark.parametrize(
    ("first", "second", "used_step", "proof"),
    [
        ({"epoch": steps(1, 2, 3, 9)}, {"epoch": steps(8, 9)}, None, Proof.CHAINABLE),
        ({"iter": steps(1, 90)}, {"iter": steps(1, 90)}, None, Proof.NOT_CHAINABLE),
        ({"iter": steps(1, 90)}, {"iter": steps(12, 90)}, None, Proof.UNPROVEN),  # an early save, perhaps
        ({"iter": steps(1, 90, 1, 90)}, {"iter": steps(1, 90)}, None, Proof.UNPROVEN),  # each epoch anew
        (
            {"bar": steps(1, 2, 1), "step": steps(5, 50)},
            {"bar": steps(1), "step": steps(40)},
            None,
            Proof.CHAINABLE,
        ),
        ({"reported": steps(1, 90)}, {"reported": steps(9, 90)}, 8, Proof.CHAINABLE),
    ],
)
def test_ordinary_output_tells_too(
    first: dict[str, StepTrace], second: dict[str, StepTrace], used_step: int | None, proof: Proof
) -> None:
    parts = (replace(FIRST, steps=first), replace(SECOND, steps=second, used_step=used_step))
    assert judge(parts, "", (), 20).proof is proof


@pytest.mark.parametrize(
    ("before", "used", "after", "proof"),
    [
        ((10, 20), 20, (30,), Proof.CHAINABLE),
        ((10, 20), 20, (10, 20), Proof.NOT_CHAINABLE),
        ((20,), 20, (20,), Proof.UNPROVEN),
        ((10, 20, 10), 10, (20,), Proof.UNPROVEN),
    ],
)
def test_the_steps_of_checkpoints_tell_too(
    before: tuple[int, ...], used: int, after: tuple[int, ...], proof: Proof
) -> None:
    parts = (
        replace(FIRST, steps={}, saved_steps=before),
        replace(SECOND, steps={}, used_step=used, saved_steps=after),
    )
    assert judge(parts, "", (), 20).proof is proof


def test_the_price_of_a_restart() -> None:
    asked = Costs(ready_s=25, save_s=5, saves_when_asked=True, gap_s=None)
    assert lost_share(asked, 595) == pytest.approx(30 / 600)
    assert recommended_min(asked) == (10, 10) or recommended_min(asked) == (15, 15)
    quick = replace(asked, ready_s=0.5, save_s=0.1)
    assert recommended_min(quick) == (10, 1)
    slow = replace(asked, ready_s=180)
    assert recommended_min(slow)[0] == 90, "three minutes are five per cent of an hour"
    seldom = Costs(ready_s=20, save_s=0, saves_when_asked=False, gap_s=420)
    assert lost_share(seldom, 300) == 1, "no save fits"
    assert lost_share(seldom, 600) == pytest.approx(20 / 440)
    assert lost_share(seldom, 900) == pytest.approx(20 / 860)


cost = st.floats(0, 3000)


@given(cost, cost, st.booleans(), st.none() | st.floats(0.1, 20000))
def test_what_is_recommended_is_the_cheapest_there_is_or_cheap_enough(
    ready_s: float, save_s: float, asked: bool, gap_s: float | None
) -> None:
    costs = Costs(ready_s=ready_s, save_s=save_s, saves_when_asked=asked, gap_s=gap_s)
    shares = {box: lost_share(costs, box * 60) for box in BOXES_MIN}
    assert all(0 <= share <= 1.0000001 for share in shares.values())
    box, least = recommended_min(costs)
    assert least <= box
    assert shares[box] <= FINE_SHARE or shares[box] <= min(shares.values()) + 0.001


def drill(bench: Bench, *words: str, seconds: float = 3) -> subprocess.CompletedProcess[str]:
    done = bench.backprop("drill", "--seconds", str(seconds), *QUIET_LIMITS, *words)
    assert not list(bench.home.glob("drill-*")), "its own home is gone"
    assert not (bench.home / "backprop.db").exists(), "and nothing was queued"
    return done


def test_the_example_is_chainable(bench: Bench) -> None:
    done = drill(bench, "--json", DIGITS, "--", "--out", "drilled", "--epochs", "100000")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["verdict"] == "chainable"
    assert "resumed at step" in seen["reason"]
    assert [one["outcome"] for one in seen["segments"]] == ["timeboxed", "timeboxed"]
    assert seen["saves_when_asked"] is True
    assert seen["segments"][1]["checkpoint_used"].startswith(str(bench.project / "drilled" / "ckpt-"))
    assert seen["checkpoint_size_bytes"] > 100_000
    assert seen["ram_peak_mib"] > 5
    assert 0 < seen["ready_s"] < 3
    assert seen["least_timebox_min"] <= seen["timebox_min"]
    assert "the script writes its normal outputs" in done.stderr


FORGETS = """
import json, os, sys, time
step = 0
while True:
    time.sleep(0.02)
    step += 1
    print(json.dumps({"step": step}), flush=True)
    if step % 10 == 0 and "saves" in sys.argv:
        open("ckpt", "w").write(str(step))
        print(json.dumps({"event": "checkpoint_saved", "path": "ckpt", "step": step}), flush=True)
"""


def test_a_script_that_cannot_resume_is_told_so(bench: Bench) -> None:
    bench.script("train.py", FORGETS)
    done = drill(bench, "train.py", "--", "saves", seconds=2)
    assert done.returncode == 25
    assert "NOT OK: it started over: saved at step" in done.stdout
    assert "--resume-arg" in done.stdout
    assert "lost to restarts" not in done.stdout, "no timebox is recommended"
    assert "the run ends there" in done.stdout


def test_a_script_that_saves_nothing_is_told_so(bench: Bench) -> None:
    bench.script("train.py", FORGETS)
    done = drill(bench, "train.py", seconds=1)
    assert done.returncode == 25
    assert "OK, it is not ended: it saved no checkpoint" in done.stdout
    assert "the run would begin at zero" in done.stdout
    assert "docs/protocol.md" in done.stdout
    assert '| {"step": ' in done.stderr, "the end of its output is shown: the log is gone"


UNMODIFIED = """
import argparse, os, time
parser = argparse.ArgumentParser()
parser.add_argument("--resume")
came_from = parser.parse_args().resume
step = int(open(came_from).read()) if came_from else 0
while True:
    time.sleep(0.02)
    step += 1
    print(f"iter {step}: loss {1 / step:.4f}", flush=True)
    if step % 20 == 0:
        open("draft", "w").write(str(step))
        os.replace("draft", f"model_{step}.txt")
"""


def test_an_unmodified_script_is_drilled_by_its_files_and_its_output(bench: Bench) -> None:
    bench.script("train.py", UNMODIFIED)
    words = ("--checkpoint-glob", "model_*.txt", "--resume-arg", "--resume {checkpoint}", "train.py")
    done = drill(bench, *words, seconds=5)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK, it resumes: its output stopped at step" in done.stdout
    assert "it does not save when asked" in done.stdout
    assert "it does not save when asked" in done.stdout
    assert "lost to restarts" in done.stdout


LOOP = """
import os, pickle, signal, sys, time
NAME = "{name}"
step, best = 0, 9.0
if os.path.exists(NAME):
    with open(NAME, "rb") as file:
        step = pickle.load(file)["step"]
def save():
    with open(NAME + ".tmp", "wb") as file:
        pickle.dump({{"step": step, "weights": [0.5] * 2000}}, file)
    os.replace(NAME + ".tmp", NAME)
{before}
while step < {steps}:
    time.sleep(0.02)
    step += 1
    print(f"step {{step}} loss {{1 / step:.4f}}", flush=True)
    if step % 160 == 0:
        {each}
{after}
"""
ON_SIGNAL = "def ended(*_):\n    save()\n    sys.exit(0)\nsignal.signal(signal.SIGINT, ended)"
PICKLED = ("--checkpoint-glob", "*.pkl", "--resume-arg", "none")


@pytest.mark.long
@pytest.mark.parametrize(
    ("parts", "words", "verdict", "at_timebox", "told"),
    [
        ({"name": "best.pkl", "each": "save()"}, PICKLED, "from its best", "ends after a save", "best epoch"),
        ({"name": "c.pkl", "before": ON_SIGNAL}, PICKLED, "chainable", "goes on", "--at-timebox end"),
        ({"name": "c.pkl", "after": "save()"}, (), "renewed", "goes on", "not ended"),
    ],
    ids=["best only", "on the signal alone", "at its end alone"],
)
def test_a_drill_says_how_a_run_will_go_on(
    bench: Bench, parts: dict[str, str], words: tuple[str, ...], verdict: str, at_timebox: str, told: str
) -> None:
    filled = {"each": "pass", "before": "", "after": "", "steps": "100000"} | parts
    bench.script("train.py", LOOP.format(**filled))
    done = drill(bench, "--json", "--gpus", "0", *words, "train.py", seconds=5 if "each" in parts else 2)
    seen = json.loads(done.stdout)
    assert (seen["verdict"], seen["at_timebox"]) == (verdict, at_timebox), seen
    assert told in " ".join((seen["timebox"], seen["resume"], seen["reboot"]))
    assert (done.returncode == 0) is (verdict == "chainable")


def test_an_interrupted_drill_leaves_nothing(bench: Bench) -> None:
    bench.script("train.py", FORGETS)
    with subprocess.Popen(
        [str(COMMAND), "drill", *QUIET_LIMITS, "--seconds", "60", "train.py"],
        cwd=bench.project,
        env=bench.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as running:
        wait_until(lambda: list(bench.home.glob("drill-*/runs/*/1/processes.json")))
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=40)
    assert running.returncode == 130
    assert "its temporary home are gone" in said
    assert not list(bench.home.glob("drill-*"))
    wait_until(lambda: not bench.left(), timeout_s=10, saw=bench.left)


def test_what_a_killed_drill_left_is_removed_by_the_next(bench: Bench) -> None:
    bench.script("train.py", "raise SystemExit(3)")
    bench.home.mkdir(mode=0o700)
    for name, age_s in (("drill-old", 3600), ("drill-new", 0)):
        (bench.home / name / "runs").mkdir(parents=True)
        os.utime(bench.home / name, (time.time() - age_s,) * 2)
    done = bench.backprop("drill", "--seconds", "1", *QUIET_LIMITS, "train.py")
    assert done.returncode == 25
    assert "its first segment ended before its timebox: exited 3" in done.stdout
    assert [path.name for path in bench.home.glob("drill-*")] == ["drill-new"], "one may just be starting"


def test_a_dry_run_starts_nothing(bench: Bench) -> None:
    bench.script("train.py", FORGETS)
    done = bench.backprop("drill", "--dry-run", *QUIET_LIMITS, "train.py")
    assert done.returncode == 0
    assert "would drill" in done.stdout
    assert not bench.home.exists()
