"""Many runs from one command: that all or none is queued, and that nothing of it is lost."""

import json
import os
import signal
import sqlite3
import subprocess
import time

import pytest

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, wait_until
from tests.support.refusals import refused

TELL = """
    import json, os, sys
    keys = ("BACKPROP_ARRAY_INDEX", "BACKPROP_GROUP", "LR", "SHELL_S")
    with open("told", "a") as file:
        file.write(json.dumps([sys.argv[1:], {key: os.environ.get(key) for key in keys}]) + "\\n")
"""


def commands(bench: Bench) -> list[str]:
    """In the order in which they were queued."""
    return [run["command"] for run in reversed(bench.runs())]


def rows(bench: Bench, columns: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(bench.home / "backprop.db")
    try:
        return database.execute(f"SELECT {columns} FROM runs ORDER BY turn_s").fetchall()
    finally:
        database.close()


def test_a_grid_becomes_runs_that_run(bench: Bench) -> None:
    """Arguments, names and environment of each; JSON in an argument stays as it is."""
    bench.script("train.py", TELL)
    done = bench.backprop(
        "run", *QUIET_LIMITS, "--grid", "lr=1e-3,1e-4", "--array", "1-2%1", "--env", "LR=<{lr}>", "--env", "SHELL_S=s",
        "--name", "lr{lr}_{index}", "train.py", "--", "--lr", "{lr}", '{"lr": {x}}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    group = done.stdout.split("group ")[1].split(",")[0]
    assert done.stdout.startswith("queued 4 runs, group train-")
    assert rows(bench, "name, array_index, group_name") == [
        ("lr1e-3_1", 1, group), ("lr1e-3_2", 2, group), ("lr1e-4_1", 1, group), ("lr1e-4_2", 2, group)
    ]  # fmt: skip
    assert not list((bench.home / "runs").iterdir()), "a folder is made when it is needed"
    bench.worker("--drain").wait(timeout=60)
    told = [json.loads(line) for line in (bench.project / "told").read_text().splitlines()]
    assert told == [
        [["--lr", lr, '{"lr": {x}}'],
         {"BACKPROP_ARRAY_INDEX": index, "BACKPROP_GROUP": group, "LR": f"<{lr}>", "SHELL_S": "s"}]
        for lr in ("1e-3", "1e-4")
        for index in ("1", "2")
    ]  # fmt: skip
    assert {run["state"] for run in bench.runs()} == {"completed"}


def test_ids_groups_and_quiet_output(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    many = bench.backprop("run", "-q", "--array", "3,5", "train.py").stdout.split()
    stem = many[0].rpartition("-")[0]
    assert many == [f"{stem}-3", f"{stem}-5"], "an array's ids end in its indices"
    assert [run["group"] for run in bench.runs()] == [f"train-{stem}"] * 2
    more = bench.backprop(
        "run", "--grid", "a=1,2", "--group", "mine", "--parallel", "7", "train.py", "--", "{a}"
    )
    assert "group mine" in more.stdout
    assert rows(bench, "group_name, name")[2:] == [("mine", "train-1"), ("mine", "train-2")]
    one = bench.queue("--group", "mine", "--priority", "5", "--hold", "train.py")
    assert bench.show(one)["group"] == "mine"
    assert (bench.column(one, "state"), bench.column(one, "priority")) == ("held", 5)
    rules = sqlite3.connect(bench.home / "backprop.db")
    try:
        assert rules.execute("SELECT max_parallel FROM groups WHERE name = 'mine'").fetchone() == (7,)
    finally:
        rules.close()


def test_a_dry_run_lists_and_writes_nothing(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    (bench.project / "p.csv").write_text("a\n" + "\n".join(map(str, range(30))))
    done = bench.backprop("run", "--params", "p.csv", "train.py", "--dry-run", "--", "{a}")
    assert "would queue 30 runs" in done.stdout
    assert "python train.py 19" in done.stdout
    assert "python train.py 20" not in done.stdout
    assert "… and 10 more" in done.stdout
    assert not bench.home.exists()


REFUSED: list[tuple[list[str], int, str]] = [
    (["--grid", "lr=1,2", "train.py"], 6, "--grid lr has no effect: put {lr} in the arguments, --name or --env"),
    (["--grid", "lr=1,2", "--array", "1-3%x", "train.py"], 6, "--array"),
    (["--grid", "index=1,2", "--array", "1-3", "train.py", "--", "{index}"], 6, "two sources"),
    (["--params", "none.csv", "train.py"], 6, "cannot be read"),
    (["--array", "1-3", "--run-id", "x", "train.py"], 6, "--run-id names one run"),
    (["--array", "1-3", "--follow", "train.py"], 2, "--follow"),
    (["--array", "1-3"], 2, "SCRIPT is missing"),
    (["--array", "1-3", "none.py"], 6, "does not exist"),
    (["--array", "1-3%2", "--parallel", "3", "train.py"], 6, "disagree"),
    (["--array", "1-3", "--name", "a/b", "train.py"], 6, "--name"),
    (["--parallel", "3", "train.py"], 2, "--group"),
    (["--begin", "2020-01-01", "train.py"], 6, "has passed"),
    (["--grid", "a=1..400", "--grid", "b=1..400", "train.py"], 6, "160,000 runs"),
    (["--batch", "jobs", "train.py"], 2, "--batch takes the commands from its file"),
    (["--batch", "none"], 6, "cannot be read"),
]  # fmt: skip


def test_what_is_refused_leaves_nothing(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    for words, code, says in REFUSED:
        assert says in refused(bench, code, "run", *words)


def test_lines_of_one_script_keep_their_own_arguments(bench: Bench) -> None:
    """Whatever their number is: they share all that is made once for the script."""
    bench.script("train.py", "print(1)")
    for lines in (
        ["train.py", "train.py -- 3", "train.py -- --lr 3 x", "train.py"],
        ["train.py -- --lr 3 x", "train.py", "train.py -- 3"],
        ["-- sh -c a", "-- sh", "-- sh -c a b"],
    ):
        (bench.project / "jobs").write_text("\n".join(lines))
        assert bench.backprop("run", "--batch", "jobs").returncode == 0
        meant = [line.replace("train.py", "python train.py", 1).replace("-- ", "", 1) for line in lines]
        assert commands(bench)[-len(lines) :] == meant


def test_a_file_of_commands(bench: Bench) -> None:
    """Options of its own for each line, over those of the command; a line may wait for one above it."""
    bench.script("train.py", "print(1)")
    (bench.project / "jobs").write_text(
        "# tonight\n"
        "train.py -n base --priority 3 -- --lr 1\n"
        "\n"
        "  train.py -m 7 --env A=2 --after base -- --tag '#1'   # the second\n"
        "-- sh -c 'echo a b'\n"
        "train.py --run-id mine --retries 0\n"
    )
    done = bench.backprop(
        "run", "--batch", "jobs", "-m", "3", "--retries", "2", "--env", "A=1", "--group", "night"
    )
    assert done.stdout.startswith("queued 4 runs, group night"), done.stderr
    assert commands(bench) == [
        "python train.py --lr 1",
        "python train.py --tag '#1'",
        "sh -c 'echo a b'",
        "python train.py",
    ]
    kept = rows(
        bench, "id, name, priority, json_extract(spec, '$.timebox_s'), json_extract(spec, '$.retries')"
    )
    stem = str(kept[0][0]).rpartition("-")[0]
    assert kept == [
        (f"{stem}-1", "base", 3, 180.0, 2),
        (f"{stem}-2", "train", 0, 420.0, 2),
        (f"{stem}-3", "sh", 0, 180.0, 2),
        ("mine", "train", 0, 180.0, None),
    ]
    assert bench.show(f"{stem}-2")["after"] == [{"run": f"{stem}-1", "kind": "success", "state": "queued"}]
    lines = [json.loads(line) for line in (bench.home / "batches" / f"{stem}.jsonl").read_text().splitlines()]
    assert [one.get("environment") for one in lines[1:]] == [{"A": "1"}, {"A": "2"}, {"A": "1"}, {"A": "1"}]


def test_commands_from_stdin(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    done = subprocess.run(
        [str(COMMAND), "run", "--batch", "-", "-q"],
        input="train.py -- 1\ntrain.py -- 2\n",
        capture_output=True, text=True, check=False, env=bench.environment, cwd=bench.project,
    )  # fmt: skip
    assert len(done.stdout.split()) == 2, done.stderr


BAD_LINES: list[tuple[str, int, str]] = [
    ("none.py", 6, "none.py does not exist"),
    ("train.py 'x", 6, "no closing quotation"),
    ("train.py --no-such-option", 2, "No such option"),
    ("train.py --priority high", 2, "--priority"),
    ("train.py --grid a=1,2 -- {a}", 6, "--grid belongs to the command itself"),
    ("train.py --env A", 6, "--env A is not KEY=VALUE"),
    ("train.py extra", 6, "come after --"),
    ("-m 3", 6, "SCRIPT is missing"),
    ("train.py --after nobody", 3, "no run has the id or name nobody"),
    ("train.py --run-id one", 6, "--run-id one is taken"),
    ("train.py --after same", 6, "2 runs above are called same"),
    ("train.py --begin yesterday", 6, "--begin yesterday is not a valid time"),
]


def test_one_bad_line_and_nothing_is_queued(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py")
    good = "train.py -n same -- 1\ntrain.py -n same -- 2\ntrain.py --run-id one\n"
    for line, code, says in BAD_LINES:
        (bench.project / "jobs").write_text(f"{good}{line}\ntrain.py -- 3\n")
        told = refused(bench, code, "run", "--batch", "jobs")
        assert says.lower() in told.lower()
        assert "--batch jobs, line 4: " in told
    assert len(bench.runs()) == 1


@pytest.mark.parametrize("what", ["kill", "raise"])
def test_an_end_between_file_and_transaction(bench: Bench, what: str) -> None:
    """A command that is killed there has said nothing yet; the next worker finds the file, and then it is all of them.
    One that fails there has said so, and it is none."""
    bench.script("train.py", "print(1)")
    words = ("run", *QUIET_LIMITS, "--array", "1-5", "train.py")
    done = bench.backprop(*words, env={"BACKPROP_FAILPOINT": f"batch written:{what}"})
    assert done.returncode == (-signal.SIGKILL if what == "kill" else 9)
    assert bench.runs() == []
    files = list((bench.home / "batches").iterdir())
    assert len(files) == (1 if what == "kill" else 0)
    bench.worker("--drain").wait(timeout=60)
    assert len(bench.runs()) == (5 if what == "kill" else 0)
    assert all(run["state"] == "completed" for run in bench.runs())
    bench.worker("--drain").wait(timeout=60)
    assert list((bench.home / "batches").iterdir()) == [], (
        "each has its folder: the file is not needed any more"
    )


def test_a_worker_that_starts_meanwhile_queues_them_once(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    command = subprocess.Popen(
        [str(COMMAND), "run", *QUIET_LIMITS, "--array", "1-20", "train.py"],
        env=bench.environment | {"BACKPROP_FAILPOINT": "batch written:sleep:3000"},
        cwd=bench.project, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: list(bench.home.glob("batches/*.jsonl")))
        bench.worker()
        told, _ = command.communicate(timeout=60)
        assert told.startswith("queued 20 runs")
    finally:
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)
    wait_until(lambda: set(bench.states()) == {"completed"})
    assert [run["segment_count"] for run in bench.runs()] == [1] * 20


def test_ten_thousand_at_once_and_none_lost_with_the_database(bench: Bench) -> None:
    """The time is for a machine with nothing else to do; a test machine is allowed ten times as much."""
    bench.script("train.py", "print(1)")
    bench.backprop("list")
    before = time.monotonic()
    done = bench.backprop(
        "run", "--array", "1-10000%4", "--priority", "2", "--begin", "+1h", "train.py", "--", "{index}"
    )
    took_s = time.monotonic() - before
    assert done.stdout.startswith("queued 10,000 runs"), done.stderr
    assert took_s < 20
    kept = (
        "id, name, json_extract(spec, '$.argv'), group_name, array_index, batch, priority,"
        " not_before_s, created_at_s, turn_s, state"
    )
    queued = rows(bench, kept)
    assert len(queued) == 10_000
    (bench.home / "backprop.db").unlink()
    bench.worker("--drain", env={"BACKPROP_FAILPOINT": "nowhere:kill"})
    wait_until(lambda: "10000 runs put back" in bench.output(), saw=bench.output)
    bench.workers[0].send_signal(signal.SIGTERM)
    bench.workers[0].wait(timeout=60)
    assert rows(bench, kept) == queued
    database = sqlite3.connect(bench.home / "backprop.db")
    try:
        assert database.execute("SELECT max_parallel FROM groups").fetchall() == [(4,)]
    finally:
        database.close()


def test_no_more_of_a_group_at_once_than_it_may(bench: Bench) -> None:
    """With two workers that could take more."""
    bench.script(
        "train.py",
        """
        import os, time
        open(f"on-{os.getpid()}", "w").close()
        time.sleep(0.3)
        with open("seen", "a") as file:
            file.write(f"{sum(name.startswith('on-') for name in os.listdir())}\\n")
        os.unlink(f"on-{os.getpid()}")
        """,
    )
    bench.backprop("run", *QUIET_LIMITS, "-p", "9", "--array", "1-8%2", "train.py")
    workers = [bench.worker("--drain", "-p", "9") for _ in range(2)]
    for worker in workers:
        assert worker.wait(timeout=90) == 0
    seen = [int(line) for line in (bench.project / "seen").read_text().split()]
    assert len(seen) == 8
    assert max(seen) <= 2


def test_why_a_member_waits(bench: Bench) -> None:
    bench.script("train.py", "import time; time.sleep(60)")
    ids = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--grace-seconds", "1", "--array", "1-2%1", "train.py"
    ).stdout.split()
    late = bench.queue("--begin", "+1h", "train.py")
    bench.worker()
    bench.wait_for(ids[0], "running")
    group = bench.show(ids[1])["group"]
    assert f"its group {group} has 1 running, at most 1 may" in bench.backprop("why", ids[1]).stdout
    assert "its time comes at" in bench.backprop("why", late).stdout
    assert json.loads(bench.backprop("why", late, "--json").stdout)["waits"]
    assert bench.show(late)["not_before"] is not None
    bench.backprop("stop", *ids, late)
    bench.wait_for(ids[0], "stopped")


def test_a_stopped_member_can_be_resumed(bench: Bench) -> None:
    """It never had a folder: that it was stopped and that it goes on are both remembered."""
    bench.script("train.py", "print(1)")
    ids = bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-3", "train.py").stdout.split()
    bench.backprop("stop", *ids)
    assert {bench.state(run) for run in ids} == {"stopped"}
    assert bench.backprop("resume", ids[1]).returncode == 0
    (bench.home / "backprop.db").unlink()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert [bench.state(run) for run in ids] == ["stopped", "completed", "stopped"]
