"""`backprop run`: what exactly is queued, and what the leader then gets."""

import json
import shlex
import sqlite3
import sys
from pathlib import Path

import pytest

from backprop.cli.submit.enqueue import was_queued
from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.store.connection import Database
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench
from tests.support.refusals import refused
from tests.support.telling_script import TAKES_IT, TELL, run_to_end, told

AGAIN = """
    import json, os, sys
    number = int(os.environ["BACKPROP_SEGMENT"])
    print(json.dumps({"argv": sys.argv[1:], "from": os.environ.get("BACKPROP_RESUME_FROM")}))
    if number == 1:
        open("a b.ckpt", "w").write("1")
        print(json.dumps({"event": "checkpoint_saved", "path": "a b.ckpt", "step": 1}))
        sys.exit(75)
"""


def spec(bench: Bench, run: str) -> dict[str, object]:
    return json.loads((bench.home / "runs" / run / "spec.json").read_text())


def test_run_prints_the_id_and_how_to_start_a_worker(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    done = bench.backprop("run", *QUIET_LIMITS, "train.py")
    run = bench.runs()[0]["id"]
    assert done.stdout == f"queued train, id {run}\n"
    goes_on = (
        "goes on by: suspending it in place; after a reboot: nothing known;"
        " I can't tell how train.py saves or resumes. Try:\n  backprop drill train.py\n"
    )
    assert done.stderr == f"{goes_on}no worker is running. Start one: tmux new -d 'backprop worker'\n"
    bench.worker()
    bench.wait_for(run, "completed")
    again = bench.backprop("run", *QUIET_LIMITS, "train.py")
    assert again.stderr == goes_on, "there is one now"
    assert bench.backprop("run", "-q", *QUIET_LIMITS, "train.py").stdout.strip().isalnum()


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "3", "-n", "x", "train.py", "--", "-m", "9", "--name", "y"),
        ("train.py", "-m", "3", "-n", "x", "--", "-m", "9", "--name", "y"),
        ("-m", "3", "train.py", "-n", "x", "--", "-m", "9", "--name", "y"),
    ],
)
def test_options_stand_before_or_after_the_script(bench: Bench, words: tuple[str, ...]) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue(*words)
    assert bench.show(run)["command"] == "python train.py -m 9 --name y"
    kept = spec(bench, run)
    assert kept["name"] == "x"
    assert kept["spec"]["timebox_s"] == 180  # type: ignore[index]


def test_every_option_reaches_the_run(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.script("last.ckpt", "1")
    words = shlex.split(
        """-m 0.5 -f pytorch -c 2 -r last.ckpt --run-id me -n name -g 80% -p 3 --min-free-ram 1.5
        --gpu-probe none --gpu-min-vram 100 --gpu-max-temp 70 --max-cpu-load 9 --no-auto-resume --max-segments 7
        --max-total-minutes 60 --grace-seconds 5 --stop-signal sigterm --retries 2"""
    )
    done = bench.backprop("run", "-q", *words, "--resume-arg", "--load {checkpoint}", "train.py")
    assert done.stdout == "me\n", done.stderr
    kept = spec(bench, "me")
    assert kept["name"] == "name"
    expected = {
        "timebox_s": 30,
        "framework": "pytorch",
        "checkpoint_every_s": 120,
        "resume_from": str(bench.project / "last.ckpt"),
        "gpu_memory_limit": "80%",
        "max_parallel": 3,
        "min_free_ram_mib": 1536,
        "gpu_probe": "none",
        "gpu_min_vram_mib": 100,
        "gpu_min_vram_declared": True,
        "gpu_max_temp_c": 70,
        "max_cpu_load": 9,
        "auto_resume": False,
        "max_segments": 7,
        "max_total_s": 3600,
        "grace_s": 5,
        "stop_signal": "TERM",
        "retries": 2,
        "resume_arg": "--load {checkpoint}",
    }
    assert {key: kept["spec"].get(key) for key in expected} == expected  # type: ignore[attr-defined]


def test_an_id_is_taken_once(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "--run-id", "mine")
    before = spec(bench, "mine")
    said = refused(bench, 6, "run", "train.py", "--run-id", "mine", "-n", "other")
    assert "a run with the id mine exists" in said
    assert spec(bench, "mine") == before
    assert len(bench.runs()) == 1


def test_the_environment_of_the_shell_is_the_runs_and_nothing_of_an_outer_run(bench: Bench) -> None:
    bench.script("train.py", TELL)
    shell = {
        "MY_SECRET": "s3cret",
        "MY_BYTES": "\udcff",
        "BACKPROP_RUN_ID": "outer",
        "BACKPROP_RESUME_FROM": "/outer.ckpt",
        "BACKPROP_SEGMENT": "9",
    }
    run = run_to_end(bench, "train.py", "--env", "MY_OWN=a=b", "--env", "MY_EMPTY=", env=shell)
    seen = told(bench, run)["env"]
    assert isinstance(seen, dict)
    assert seen["MY_SECRET"] == "s3cret"
    assert seen["MY_BYTES"] == "\udcff"
    assert (seen["MY_OWN"], seen["MY_EMPTY"]) == ("a=b", "")
    assert (seen["BACKPROP_RUN_ID"], seen["BACKPROP_SEGMENT"]) == (run, "1")
    assert "BACKPROP_RESUME_FROM" not in seen
    assert seen["PYTHONUNBUFFERED"] == "1"
    path = bench.home / "runs" / run / "spec.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"s3cret" not in (bench.home / "backprop.db").read_bytes(), "never in the database"


def test_the_python_of_the_shell_runs_the_script(bench: Bench, tmp_path: Path) -> None:
    """A virtual environment's python is a link: it finds its packages by the name it is called by."""
    bench.script("train.py", TELL)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    path = f"{venv / 'bin'}:{bench.environment['PATH']}"
    run = run_to_end(bench, "train.py", env={"PATH": path})
    assert told(bench, run)["exe"] == str(venv / "bin" / "python")
    assert told(bench, run)["prefix"] == str(venv)
    assert bench.show(run)["command"] == "python train.py"
    chosen = run_to_end(bench, "train.py", "--python", str(venv / "bin" / "python"))
    assert told(bench, chosen)["prefix"] == str(venv)


@pytest.mark.parametrize(
    ("body", "option", "argv"),
    [
        (AGAIN, None, []),
        (AGAIN + TAKES_IT, None, ["--resume-from", "{checkpoint}"]),
        (AGAIN + TAKES_IT, "none", []),
        (AGAIN, "--load={checkpoint} --strict 'a b'", ["--load={checkpoint}", "--strict", "a b"]),
        (AGAIN, "{checkpoint}", ["{checkpoint}"]),
    ],
)
def test_how_a_script_is_told_its_checkpoint(
    bench: Bench, body: str, option: str | None, argv: list[str]
) -> None:
    """Nothing is appended to a script that did not ask for it; BACKPROP_RESUME_FROM is always set."""
    bench.script("train.py", body)
    words = ["--resume-arg", option] if option else []
    run = run_to_end(bench, "train.py", *words, "--", "--lr", "1")
    checkpoint = str(bench.project / "a b.ckpt")
    assert told(bench, run, 1) == {"argv": ["--lr", "1"], "from": None}
    added = [word.replace("{checkpoint}", checkpoint) for word in argv]
    assert told(bench, run, 2) == {"argv": ["--lr", "1", *added], "from": checkpoint}
    assert bench.show(run)["segments"][1]["checkpoint_used"] == checkpoint


def test_a_first_segment_resumes_from_what_was_given(bench: Bench) -> None:
    bench.script("train.py", "import os\nprint(os.environ['BACKPROP_RESUME_FROM'])\n")
    bench.script("start.ckpt", "1")
    run = run_to_end(bench, "train.py", "-r", "start.ckpt")
    assert bench.log(run).strip() == str(bench.project / "start.ckpt")


def test_a_project_file_is_obeyed_and_a_flag_beats_it(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.script(
        "backprop.config.json", '{"maxRunMinutes": 3, "retries": 4, "trainingScriptPath": "evil.py"}'
    )
    done = bench.backprop("run", "-q", "--retries", "1", "train.py")
    assert "trainingScriptPath is ignored" in done.stderr
    kept = spec(bench, done.stdout.strip())["spec"]
    assert (kept["timebox_s"], kept["retries"]) == (180, 1)  # type: ignore[index]
    other = bench.script("other.json", '{"maxRunMinutes": 5}')
    for words in (
        ("--config", str(other), "run", "-q", "train.py"),
        ("run", "-q", "train.py", "--config", "other.json"),
    ):
        run = bench.backprop(*words).stdout.strip()
        assert spec(bench, run)["spec"]["timebox_s"] == 300  # type: ignore[index]


def test_the_umask_of_the_shell_is_the_runs(bench: Bench) -> None:
    bench.script("train.py", "open('made', 'w')\n")
    bench.queue("train.py", command=("sh", "-c", 'umask 027; exec "$0" "$@"', str(COMMAND)))
    bench.worker("--drain").wait(timeout=60)
    assert (bench.project / "made").stat().st_mode & 0o777 == 0o640


def test_what_a_locked_database_refused_was_not_queued(database: Database) -> None:
    """Even if nobody can look because it is locked still; but an interrupt may have come just after the commit."""
    locked = sqlite3.connect(database.home.database, isolation_level=None)
    impatient = Database(database.home, database._db, patience_s=0.05)
    try:
        locked.execute("BEGIN EXCLUSIVE")
        assert not was_queued(impatient, "r1", DatabaseBusy("locked"))
        assert was_queued(impatient, "r1", KeyboardInterrupt())
    finally:
        locked.close()


def test_the_scripts_own_options_are_shown_their_place(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    said = refused(bench, 2, "run", "train.py", "--lr", "3e-4")
    assert "come after --: backprop run train.py -- --lr 3e-4" in said
