"""`backprop run`: what exactly is queued, and what the leader then gets; `--dry-run`, which writes nothing."""

import json
import shlex
import sqlite3
import sys
import venv
from pathlib import Path

import pytest

from backprop.cli.submit.enqueue import was_queued
from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.store.connection import Database
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench
from tests.support.refusals import contents, refused

TELL = """
    import json, os, sys
    names = [name for name in os.environ if name.startswith(("BACKPROP_", "MY_", "PYTHONUNB"))]
    print(json.dumps({"argv": sys.argv, "exe": sys.executable, "prefix": sys.prefix, "cwd": os.getcwd(),
                      "env": {name: os.environ[name] for name in names}}))
"""
AGAIN = """
    import json, os, sys
    number = int(os.environ["BACKPROP_SEGMENT"])
    print(json.dumps({"argv": sys.argv[1:], "from": os.environ.get("BACKPROP_RESUME_FROM")}))
    if number == 1:
        open("a b.ckpt", "w").write("1")
        print(json.dumps({"event": "checkpoint_saved", "path": "a b.ckpt", "step": 1}))
        sys.exit(75)
"""
TAKES_IT = "    # parser.add_argument('--resume-from')\n"


def run_to_end(bench: Bench, *words: str, env: dict[str, str] | None = None) -> str:
    """Queue and run to the end in a worker; the run's id."""
    at = words.index("--") if "--" in words else len(words)
    done = bench.backprop("run", "-q", *QUIET_LIMITS, *words[:at], *words[at:], env=env)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    worker = bench.worker("--drain")
    assert worker.wait(timeout=60) == 0, bench.output()
    return run


def told(bench: Bench, run: str, segment: int = 1) -> dict[str, object]:
    """What the leader said of itself."""
    (line,) = [line for line in bench.log(run, segment).splitlines() if line.startswith('{"argv"')]
    return json.loads(line)


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


def test_a_script_that_its_python_cannot_start_is_warned_about(bench: Bench) -> None:
    """By `run` and by a sweep, as a line and as JSON; a run is queued all the same."""
    bench.script("train.py", "import no_such_module\n")
    words = ("run", *QUIET_LIMITS, "--python", own_python(bench), "train.py")
    said = "train.py imports no_such_module, not found in "
    assert f"warning: {said}" in bench.backprop(*words).stderr
    shown = json.loads(bench.backprop(*words, "--json").stdout)
    assert [line.startswith(said) for line in shown["warnings"]] == [True]
    assert shown["runs"] == [{"id": bench.runs()[0]["id"], "name": "train", "key": None, "existing": False}]
    (kind,) = shown["kinds"]
    assert (kind["runs"], kind["goes_on_by"]["way"]) == (1, "unknown")
    assert bench.show(shown["runs"][0]["id"])["goes_on_by"] == kind["goes_on_by"]
    sweep = bench.backprop(*words, "--grid", "a=1,2,3", "--", "{a}")
    assert [line.partition(" ")[0] for line in sweep.stderr.splitlines()] == ["warning:", "goes", "", "no"]
    dry = json.loads(bench.backprop(*words, "--json", "--dry-run", "--array", "1-4").stdout)
    assert (dry["queued"], len(dry["runs"]), dry["kinds"][0]["runs"]) == (False, 4, 4)
    assert len(dry["warnings"]) == 1
    assert refused(bench, 2, *words, "--json", "-q")


def own_python(bench: Bench) -> str:
    """A Python with a virtual environment that has nothing in it."""
    folder = bench.project.parent / "env"
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python")


def test_another_environment_beside_the_script_is_named(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    venv.create(bench.project / ".venv", symlinks=True)
    note = f"note: train.py runs under {COMMAND.with_name('python')}, not .venv of this directory"
    assert bench.backprop("run", "-q", "train.py").stderr.startswith(note)
    own = str(bench.project / ".venv" / "bin" / "python")
    assert bench.backprop("run", "-q", "--python", own, "train.py").stderr == ""
    active = {"VIRTUAL_ENV": str(bench.project / ".venv")}
    assert "not the activated" in bench.backprop("run", "-q", "train.py", env=active).stderr


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


def test_a_program_is_found_on_path_or_by_its_path(bench: Bench) -> None:
    tool = bench.script("bin/tool", '#!/bin/sh\necho "tool $0 $*"\n')
    tool.chmod(0o755)
    run = run_to_end(bench, "--", "./bin/tool", "--lr", "3e-4")
    assert bench.log(run) == f"tool {tool} --lr 3e-4\n"
    path = f"{tool.parent}:{bench.environment['PATH']}"
    named = run_to_end(bench, "-n", "named", "--", "tool", "a b", "$HOME", env={"PATH": path})
    assert bench.log(named).endswith("a b $HOME\n"), "no shell in between"
    assert bench.show(named)["command"] == "tool 'a b' '$HOME'"
    assert bench.show(run)["name"] == "tool"
    tool.chmod(0o644)
    assert "chmod +x ./bin/tool" in refused(bench, 6, "run", "./bin/tool")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo hello\n", "no first line such as #!/bin/sh"),
        ("", "is empty"),
        ("#!/bin/sh\r\necho hello\r\n", "Windows line ends"),
        ("#!/usr/bin/env sh\r\necho hello\r\n", "Windows line ends"),
        ("#!/opt/gone/bin/python\nprint(1)\n", "/opt/gone/bin/python, which is not here"),
        ("#!/etc/passwd\n", "/etc/passwd, which is not executable"),
        ("#!/usr/bin/env no-such-interpreter\n", "no-such-interpreter, which is not on PATH"),
        ("#!/usr/bin/env -S no-such-interpreter -x\n", "no-such-interpreter, which is not on PATH"),
        ("#!\n", "no interpreter"),
    ],
)
def test_a_script_that_cannot_be_started_is_refused_when_it_is_queued(
    bench: Bench, body: str, said: str
) -> None:
    """By its path, on PATH, in a file of commands, in a drill and in an editor."""
    tool = bench.script("bin/tool", "")
    tool.write_bytes(body.encode())
    tool.chmod(0o755)
    bench.script("jobs.txt", "./bin/tool\n")
    bench.environment["PATH"] += f":{tool.parent}"
    for words in ("run ./bin/tool", "run -- tool", "run --batch jobs.txt", "drill ./bin/tool"):
        message = refused(bench, 6, *words.split())
        assert said in message, (words, message)
    run = bench.queue("--hold", "--", "true")
    editor = bench.script(
        "editor", """#!/bin/sh\nsed -i 's/^command = .*/command = [".\\/bin\\/tool"]/' "$1"\n"""
    )
    editor.chmod(0o755)
    bench.environment["EDITOR"] = str(editor)
    done = bench.backprop("edit", run)
    assert (done.returncode, said in done.stderr) == (6, True), done.stderr
    assert len(bench.runs()) == 1


def test_what_the_kernel_starts_is_queued(bench: Bench) -> None:
    """Options and assignments of `env`, a program of the shell's `--env PATH`, and a line without an end."""
    (bench.project / "tools").mkdir()
    (bench.project / "tools" / "mine").symlink_to("/bin/sh")
    for number, first in enumerate(
        (
            "#!/bin/sh",
            "#! /bin/sh -e",
            "#!/usr/bin/env -S A=1 sh",
            "#!/usr/bin/env -i sh",
            "#!/usr/bin/env mine",
        )
    ):
        tool = bench.script(f"tool{number}", f"{first}\nexit 0\n")
        tool.chmod(0o755)
        path = f"{bench.project}/tools:{bench.environment['PATH']}"
        bench.queue("--env", f"PATH={path}", f"./tool{number}")


def test_a_script_of_this_directory_is_told_its_path(bench: Bench) -> None:
    script = bench.script("train.sh", "#!/bin/sh\n")
    message = refused(bench, 6, "run", "train.sh")
    assert "chmod +x ./train.sh and give ./train.sh" in message
    assert "bash train.sh" in message
    script.chmod(0o755)
    message = refused(bench, 6, "run", "train.sh")
    assert "chmod" not in message
    assert "give its path: ./train.sh" in message
    bench.queue("./train.sh")


def test_what_became_impossible_meanwhile_fails_with_the_reason(bench: Bench) -> None:
    tool = bench.script("tool", "#!/bin/sh\n")
    tool.chmod(0o755)
    barred = bench.queue("./tool")
    tool.chmod(0o644)
    bench.worker("--drain").wait(timeout=60)
    shown = bench.show(barred)
    assert shown["state"] == "failed"
    assert "could not be started: Permission denied" in shown["reason"]


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


def test_a_relative_script_is_found_where_it_was_queued(bench: Bench) -> None:
    bench.script("deep/train.py", TELL)
    run = bench.backprop("run", "-q", *QUIET_LIMITS, "train.py", cwd=bench.project / "deep").stdout.strip()
    bench.worker("--drain").wait(timeout=60)
    assert told(bench, run)["cwd"] == str(bench.project / "deep")
    assert told(bench, run)["argv"] == ["train.py"]


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


def test_the_scripts_own_options_are_shown_their_place(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    said = refused(bench, 2, "run", "train.py", "--lr", "3e-4")
    assert "come after --: backprop run train.py -- --lr 3e-4" in said


def test_a_drained_queue_is_said_to_who_queues(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    assert bench.backprop("drain", "--why", "night").returncode == 0
    done = bench.backprop("run", *QUIET_LIMITS, "train.py")
    assert "the queue is drained (night); backprop undrain opens it" in done.stderr


@pytest.mark.parametrize("verb", ["resume", "release"])
def test_what_became_impossible_meanwhile_is_refused_when_it_is_queued_again(bench: Bench, verb: str) -> None:
    """What was removed alone or rewritten is; what may come back with its folder is waited for."""
    tool = bench.script("tool", "#!/bin/sh\n")
    tool.chmod(0o755)
    script = bench.script("train.py", "print(1)")
    far = bench.script("far/train.py", "print(1)")
    runs = {
        "tool": bench.queue("./tool", "--group", "g", "--hold"),
        "script": bench.queue("train.py", "--group", "g", "--hold"),
        "far": bench.queue("far/train.py", "--group", "g", "--hold"),
    }
    far.parent.rename(bench.project / "away")
    for body, said in (
        ("#!/opt/gone/bin/sh\n", None),
        ("#!/bin/gone-sh\n", "its program /bin/gone-sh is not there; put it back"),
        ("#!/bin/sh\r\n", "has Windows line ends"),
        ("echo\n", "has no first line"),
    ):
        tool.write_text(body, newline="")
        words = (verb, runs["tool"])
        if said is None:
            assert bench.backprop(*words, "--dry-run").returncode == 0
        else:
            assert f"run {runs['tool']}: " in (message := refused(bench, 6, *words))
            assert said in message
            assert refused(bench, 6, *words, "--dry-run") == message
    script.unlink()
    assert f"its script {script} is not there; put it back" in refused(bench, 6, verb, runs["script"])

    done = bench.backprop(verb, "g")
    assert (done.returncode, done.stderr.count("backprop: run ")) == (6, 2), done
    assert runs["far"] in done.stdout
    assert {name: bench.state(run) for name, run in runs.items()} == {
        "tool": "held", "script": "held", "far": "queued",
    }  # fmt: skip
