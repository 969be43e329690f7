"""Three people's first steps: a newcomer with her own script, one with four hundred runs, one with pueue's fingers."""

import json

import pytest

from tests.support.harness import QUIET_LIMITS, Bench

OWN = """
    import os, pickle, sys, time
    seed = sys.argv[1]
    step = 0
    os.makedirs(f"saved/{seed}", exist_ok=True)
    while step < 30:
        time.sleep(0.05)
        step += 1
        print(f"step {step}/30 loss {1 / step:.3f}", flush=True)
        if step % 10 == 0:
            with open(f"saved/{seed}/new.tmp", "wb") as file:
                pickle.dump(step, file)
            os.replace(f"saved/{seed}/new.tmp", f"saved/{seed}/model.pkl")
    print("trained", seed, flush=True)
"""
FINGERS = """
    add python train.py = run SCRIPT
    add -- python train.py = run SCRIPT
    add -i -- python train.py = run SCRIPT
    add --label a -- python train.py = run SCRIPT
    status = -
    status -g a = backprop list
    status --group a = backprop list
    queue = backprop list
    ls = backprop list
    ps = backprop list
    log 3 = backprop logs RUN
    log --lines 5 3 = backprop logs RUN
    follow 3 = backprop logs RUN
    tail 3 = backprop logs RUN
    kill 3 = backprop stop RUN
    kill -s SIGINT 3 = backprop stop RUN
    kill --all = backprop stop RUN
    cancel 3 = backprop stop RUN
    pause = backprop suspend RUN
    pause 3 = backprop hold RUN
    pause --all = backprop suspend RUN
    start = backprop worker
    start 3 = backprop release RUN
    restart 3 = backprop resume RUN
    restart -e 3 = backprop resume RUN
    restart --in-place 3 = backprop resume RUN
    restart --all-failed = backprop resume RUN
    remove 3 = backprop rm RUN
    delete 3 = backprop rm RUN
    clean = backprop prune
    clean -s = backprop prune
    clear = backprop prune
    reset = backprop stop RUN, then backprop prune
    stash 3 = backprop hold RUN
    enqueue 3 = backprop run SCRIPT
    enqueue --delay 3h 3 = backprop run SCRIPT
    switch 3 4 = backprop move RUN
    send 3 y = no standard input
    group = backprop groups
    group add gpu = backprop groups
    parallel -g gpu 2 = --group NAME --parallel N
    format-status = backprop list --json
    completions bash = backprop completion
    shutdown = backprop drain
    daemon = backprop worker
    env set 3 A B = --env NAME=VALUE
    config-show = backprop config
    rename 3 b = backprop edit RUN
    run --label a train.py = -n NAME
    run --delay 3h train.py = --begin
    run --stashed train.py = --hold
    run --immediate train.py = backprop move RUN --first
    run --escape train.py = No such option
    run --working-directory . train.py = cd
    run --print-task-id train.py = --quiet
    run -a 3 train.py = --after
    run --time 5 train.py = -m MINUTES
    status --json = -
    parallel = -
    edit --label a = No such option
    show 3 --log = No such option
    stop --signal INT 3 = No such option
    top --group a = backprop list --group NAME
"""
"""What is typed = a part of the answer. `-`: it means here what it means there."""


def test_a_newcomer_with_a_script_that_no_recipe_knows_loses_nothing(bench: Bench) -> None:
    """Three runs, a box shorter than each, one slot: she is told at once, all take turns, and none is ended."""
    bench.script("mine.py", OWN)
    told = bench.backprop(
        "run", *QUIET_LIMITS, "-m", "0.01", "--grid", "seed=0..2", "mine.py", "--", "{seed}"
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("queued 3 runs")
    assert "I can't tell how mine.py saves or resumes" in told.stderr
    assert "backprop drill mine.py" in told.stderr
    worker = bench.worker("--drain", "-p", "1")
    assert worker.wait(timeout=100) == 0, bench.output()
    runs = bench.runs()
    assert [run["state"] for run in runs] == ["completed"] * 3
    assert all(run["segment_count"] == 1 for run in runs), "never started again from zero"
    for run in runs:
        assert "trained" in bench.log(run["id"])
        assert run["last_step"] == 30, "its plain output was read"
    report = bench.backprop("report", "--since", "1h")
    assert "3 completed" in report.stdout
    assert "Nothing needs you" in report.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_day_with_four_hundred_runs(bench: Bench) -> None:
    """Each look fits a screen and says how much more there is; one line changes many; the report has them all."""
    bench.script("quick.py", "import sys; print('loss:', float(sys.argv[1]) / 400)")
    words = ("--group", "week", "--grid", "n=1..400", "quick.py", "--", "{n}")
    assert "queued 400 runs, group week" in bench.backprop("run", *QUIET_LIMITS, *words).stdout
    looked = bench.backprop("list")
    assert len(looked.stdout.splitlines()) < 60
    assert "more; show all with -n 0" in looked.stderr
    assert bench.backprop("hold", "--name", "quick-3*").stdout.startswith("held ")
    assert bench.backprop("release", "--group", "week").stdout.startswith("released ")
    assert bench.worker("--drain", "-p", "8").wait(timeout=500) == 0
    assert bench.states() == {"completed": 400}
    best = json.loads(bench.backprop("list", "--sort", "loss", "-n", "1", "--json").stdout)
    assert best[0]["params"] == {"n": "1"}
    report = bench.backprop("report", "--since", "1h").stdout
    assert "400 completed" in report
    assert len(report.splitlines()) < 80
    assert bench.backprop("rm", "--group", "week").stdout.startswith("removed 400 runs")
    assert bench.runs() == []


def fingers() -> list[tuple[list[str], str]]:
    lines = [line.strip().rpartition(" = ") for line in FINGERS.strip().splitlines()]
    return [(typed.split(), said) for typed, _, said in lines]


def test_the_fingers_of_pueue_are_answered_in_one_line_each(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    assert len(fingers()) >= 60
    unhelpful: list[str] = []
    for words, said in fingers():
        done = bench.backprop(*words)
        if said == "-":
            assert done.returncode == 0, done.stderr
            continue
        one_line = done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
        if not one_line or said not in done.stderr:
            unhelpful.append(f"{' '.join(words)}: wanted {said}: got {done.returncode} {done.stderr.strip()}")
    assert unhelpful == [], "\n".join(unhelpful)
    assert bench.backprop("list", "--json").stdout.strip() == "[]", "nothing was queued by mistake"
