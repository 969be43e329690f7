"""What `backprop run` says before anything runs: dry runs, and what a run will wait for."""

from tests.support.harness import QUIET_LIMITS, Bench
from tests.support.refusals import contents, refused
from tests.support.telling_script import TAKES_IT


def test_a_dry_run_makes_nothing_and_says_what_would_happen(bench: Bench) -> None:
    bench.script("train.py", TAKES_IT)
    for words in (
        ("--dry-run", "run", *QUIET_LIMITS, "train.py"),
        ("run", *QUIET_LIMITS, "train.py", "--dry-run"),
    ):
        done = bench.backprop(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert "would queue" in done.stdout
        assert "--resume-from CHECKPOINT" in done.stdout
        assert "would start now" in done.stdout
    assert "nothing is queued" in bench.backprop("--dry-run", "worker").stdout
    assert not bench.home.exists()
    starved = bench.backprop("--dry-run", "run", "--min-free-ram", "60000", "train.py")
    assert starved.returncode == 0
    assert "can't run here: needs 60000 GiB of free RAM" in starved.stdout
    refused(bench, 6, "--dry-run", "run", "no.py")
    assert not bench.home.exists()


def pairs(said: str) -> dict[str, str]:
    """Lines of a name, two spaces or more, and what is said of it."""
    parts = [line.partition("  ") for line in said.splitlines()]
    return {name: text.strip() for name, _, text in parts}


def test_what_a_run_waits_for_is_said_at_once(bench: Bench) -> None:
    """By `run`, by `list` and by a dry run, none of which needs a worker."""
    bench.script("train.py", "print(1)")
    base = bench.queue("train.py", "-n", "base")
    words = ("run", *QUIET_LIMITS, "--begin", "2090-01-31T22:00", "--after", "base", "train.py")
    told = "not before Tue 2090-01-31 22:00", f"waits for {base} to complete"
    rows = pairs(bench.backprop(*words, "--dry-run").stdout)
    assert rows["not before"] == "Tue 2090-01-31 22:00"
    assert rows["waits for"] == f"{base} to complete"
    assert rows["governor"] == "would start then"
    queued = bench.backprop(*words)
    assert [line for line in queued.stderr.splitlines() if line in told] == list(told)
    assert "; ".join(told) in bench.backprop("list").stdout
    held = bench.backprop("run", *QUIET_LIMITS, "--hold", "--priority", "3", "train.py", "--dry-run")
    rows = pairs(held.stdout)
    assert (rows["held"], rows["priority"]) == ("until: backprop release", "3")


def test_a_dry_run_leaves_a_home_as_it_is(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.script("experiments.json", '{"x": {"scriptPath": "train.py", "status": "failed", "startTime": 1}}')
    waiting = bench.queue("train.py", "-n", "waits")
    second = bench.queue("train.py", "-n", "second")
    stopped = bench.queue("train.py", "-n", "stopped")
    bench.backprop("stop", stopped)
    before = contents(bench.home)
    said = {
        words: bench.backprop("--dry-run", *words)
        for words in (
            ("run", *QUIET_LIMITS, "train.py"),
            ("worker", "-p", "1"),
            ("worker", "--gpu-probe", "none"),
            ("stop", waiting),
            ("resume", stopped),
            ("import", "experiments.json"),
            ("config",),
        )
    }
    assert contents(bench.home) == before
    for words, done in said.items():
        assert (done.returncode, done.stderr) == (0, ""), words
    outputs = {words[0]: done.stdout for words, done in said.items() if words != ("worker", "-p", "1")}
    assert "waiting for a slot (2 of 2 busy)" in outputs["run"], "behind the two that wait already"
    assert f"{waiting}  waits: would start now" in outputs["worker"]
    one = said["worker", "-p", "1"].stdout
    assert f"{second}  second: would wait: waiting for a slot (1 of 1 busy)" in one
    assert f"would stop waits ({waiting})" in outputs["stop"]
    assert f"would queue stopped ({stopped}) again" in outputs["resume"]
    assert "would import x" in outputs["import"]


def test_what_is_met_already_is_not_waited_for(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    base = bench.queue("train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    words = ("run", *QUIET_LIMITS, "--after", base, "train.py")
    assert "waits for" not in bench.backprop(*words, "--dry-run").stdout
    done = bench.backprop(*words, "--run-id", "next")
    assert "waits for" not in done.stderr
    assert bench.column("next", "reason") == "queued"


def test_a_dry_run_counts_a_queue_of_any_length(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    assert bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-500", "train.py").returncode == 0
    rows = pairs(bench.backprop("run", "--dry-run", *QUIET_LIMITS, "train.py").stdout)
    assert rows["ahead of it"] == "500 queued"
    assert len(bench.backprop("worker", "--dry-run").stdout.splitlines()) == 500


def test_a_dry_run_refuses_an_id_that_is_taken(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    refused(bench, 6, "--dry-run", "run", "--run-id", run, "train.py")


def test_a_dry_run_knows_how_many_the_worker_lets_run(bench: Bench) -> None:
    bench.script("train.py", "import time; print('up', flush=True); time.sleep(60)")
    runs = [bench.queue("train.py") for _ in range(2)]
    bench.worker("-p", "3")
    for run in runs:
        bench.wait_for_log(run, "up")
    assert "would start now" in bench.backprop("--dry-run", "run", *QUIET_LIMITS, "train.py").stdout


def test_a_drained_queue_is_said_to_who_queues(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    assert bench.backprop("drain", "--why", "night").returncode == 0
    done = bench.backprop("run", *QUIET_LIMITS, "train.py")
    assert "the queue is drained (night); backprop undrain opens it" in done.stderr
