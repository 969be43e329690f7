"""Editing a waiting run: what the text says is checked like a command line, and no typed word is lost."""

import json
import signal
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import replace

from backprop.cli.submit import edit_text
from backprop.cli.submit.source_reader import DiskReader
from backprop.scheduler.errors import BadCommand, LostRace
from backprop.scheduler.recipes.plan import plan_for
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import user_requests
from tests.support.harness import QUIET_LIMITS, Bench
from tests.support.refusals import refused
from tests.support.store_rows import add_run, get

PYTHON = "/usr/bin/python3"


@pytest.fixture
def run(database: Database, tmp_path: Path) -> RunRecord:
    (tmp_path / "train.py").write_text("print(1)")
    argv = ("python", "train.py", "--note", 'a "quoted" \\ wörd\nand a line')
    spec = RunSpec(
        argv=argv,
        program=PYTHON,
        cwd=str(tmp_path),
        script=str(tmp_path / "train.py"),
        timebox_s=100.0,
        plan=plan_for(argv, PYTHON, tmp_path / "train.py", tmp_path, DiskReader(), None, (), "auto"),
    )
    return add_run(database, "r1", spec=spec)


def edited(run: RunRecord, old: str, new: str) -> edit_text.Edited:
    text = edit_text.to_text(run)
    assert old in text
    return edit_text.from_text(text.replace(old, new), run, "/usr/bin:/bin")


def test_a_text_that_nobody_touched_says_what_the_run_is(run: RunRecord) -> None:
    text = edit_text.to_text(run)
    again = edit_text.from_text(text, run, "")
    assert (again.name, again.priority, again.spec, again.environment) == (run.name, 0, run.spec, {})
    assert edit_text.from_text("", run, "").spec == run.spec, "what is missing stays"
    assert tomllib.loads(text)["command"] == list(run.spec.argv)
    assert "maxRunMinutes = 1.666667" in text
    assert 'maxSegments = "none"' in text


def test_what_can_be_changed(run: RunRecord) -> None:
    assert edited(run, "priority = 0", "priority = -3").priority == -3
    assert edited(run, 'name = "train"', 'name = "wide.2"').name == "wide.2"
    assert edited(run, "maxRunMinutes = 1.666667", "maxRunMinutes = 0.5").spec.timebox_s == 30
    assert edited(run, 'maxSegments = "none"', "maxSegments = 4").spec.max_segments == 4
    assert edited(run, "minFreeRamGB = 4", "minFreeRamGB = 0.5").spec.min_free_ram_mib == 512
    assert edited(run, "gpus = 1", "gpus = 0").spec.gpus == 0
    assert edited(run, 'order = "round-robin"', 'order = "fifo"').spec.order == "fifo"
    assert edited(run, 'gpuMemoryLimit = "none"', 'gpuMemoryLimit = "80%"').spec.gpu_memory_limit == "80%"
    declared = edited(run, "gpu.minFreeVramMB = 2500", "gpu.minFreeVramMB = 9000").spec
    assert (declared.gpu_min_vram_mib, declared.gpu_min_vram_declared) == (9000, True)
    assert edited(run, "[env]", '[env]\nA = "1"').environment == {"A": "1"}
    limited = replace(run, spec=replace(run.spec, max_segments=4, max_parallel=2))
    free = edited(limited, "maxSegments = 4", 'maxSegments = "none"').spec
    assert (free.max_segments, free.max_parallel) == (None, 2)


def test_another_command(run: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "eval.py").write_text("print(2)")
    other = edited(run, '"train.py"', '"eval.py"').spec
    assert (other.argv[:2], other.program) == (("python", "eval.py"), PYTHON)
    assert other.script == str(tmp_path / "eval.py")
    shell = edited(run, '"python"', '"sh"').spec
    assert (shell.program, shell.script) == ("/usr/bin/sh", str(tmp_path / "train.py"))
    assert run.spec.plan is not None
    chosen = replace(
        run,
        spec=replace(run.spec, plan=replace(run.spec.plan, globs=("/x/*",))),
    )
    assert edited(chosen, '"train.py"', '"eval.py"').spec.plan == chosen.spec.plan, "the user's own stays"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("priority = 0", "priority = 1.5", "priority: expected a whole number"),
        ("priority = 0", "priority = ", "not valid TOML"),
        ("priority = 0", "priorty = 3", "priorty is not a key of a run"),
        ('name = "train"', 'name = "a/b"', "name a/b is refused"),
        ('name = "train"', "name = 3", "name: expected a text"),
        (
            "maxRunMinutes = 1.666667",
            "maxRunMinutes = 0",
            "maxRunMinutes: expected minutes: a number above 0",
        ),
        ("maxRunMinutes = 1.666667", 'maxRunMinutes = "never"', "maxRunMinutes: expected minutes"),
        (
            'maxSegments = "none"',
            "maxSegments = 1.5",
            'maxSegments: expected a whole number, 1 or more, or "none"',
        ),
        ("gpus = 1", "gpus = true", "gpus: expected a whole number"),
        ("exclusive = false", "exclusive = 0", "exclusive: expected true or false"),
        ('order = "round-robin"', 'order = "lifo"', "order: expected round-robin or fifo"),
        ('"train.py"', '"none.py"', "none.py does not exist in"),
        ('"python"', '"train.py"', "begin with its interpreter"),
        ('"python"', '"no-such-program"', "no-such-program is not a program on the run's PATH"),
        ('"python"', '"./train.py"', "begin with its interpreter"),
        ('"python"', '""', "the program is missing"),
        ('"python"', "7", "7 is not a word"),
        ("[env]", "[env]\nA = 1", 'env: expected NAME = "value"'),
        ("[env]", 'env = "x"', "env: expected a table"),
    ],
)
def test_what_is_refused(run: RunRecord, old: str, new: str, said: str) -> None:
    with pytest.raises(BadCommand) as caught:
        edited(run, old, new)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_change_is_made_only_to_the_run_that_was_read(database: Database) -> None:
    run = add_run(database, "r1")
    user_requests.apply_edit(database, run, "one", run.spec, 3)
    assert (get(database, "r1").name, get(database, "r1").priority) == ("one", 3)
    for stale in (run, replace(get(database, "r1"), spec=replace(run.spec, retries=9))):
        with pytest.raises(LostRace, match="changed state just now"):
            user_requests.apply_edit(database, stale, "two", run.spec, 0)
    assert get(database, "r1").name == "one"


def editor(bench: Bench, body: str) -> dict[str, str]:
    """An editor that is a shell script; $1 is the text."""
    path = bench.script("editor.sh", f"#!/bin/sh\nset -e\n{body}\n")
    path.chmod(0o755)
    return {"VISUAL": str(path)}


def test_an_edited_run_runs_as_edited(bench: Bench) -> None:
    bench.script("train.py", "import os, sys; print(sys.argv[1:], os.environ['ADDED'])")
    run = bench.queue("train.py", "--", "--lr", "1")
    change = 's/"1"/"2"/; s/^name .*/name = "changed"/; s/^priority .*/priority = 5/; s/^\\[env\\]/[env]\\nADDED="yes"/'
    done = bench.backprop("edit", run, env=editor(bench, f"sed -i '{change}' $1"))
    assert (done.returncode, done.stdout) == (0, f"changed changed ({run})\n"), done.stderr
    kept = json.loads((bench.home / "runs" / run / "spec.json").read_text())
    assert (kept["name"], kept["place"]["priority"]) == ("changed", 5)
    assert kept["environment"]["ADDED"] == "yes"
    assert kept["spec"]["argv"][-1] == "2"
    assert not (bench.home / "edits").exists()
    bench.worker("--drain").wait(timeout=60)
    assert bench.log(run) == "['--lr', '2'] yes\n"
    assert f"run {run} is completed; only a queued or held run can be edited" in refused(
        bench, 10, "edit", run
    )


def test_a_member_of_a_batch_gets_its_folder_to_be_edited(bench: Bench) -> None:
    bench.script("train.py", "import sys; print(sys.argv)")
    bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-2", "train.py", "--", "{index}")
    one, two = (run["id"] for run in bench.runs()[::-1])
    done = bench.backprop("edit", one, env=editor(bench, """sed -i 's/"1"/"seven"/' $1"""))
    assert done.returncode == 0, done.stderr
    (bench.home / "backprop.db").unlink()
    bench.worker("--drain").wait(timeout=60)
    assert "'seven'" in bench.log(one)
    assert "'2'" in bench.log(two)


def test_a_refused_text_is_kept_and_opened_again(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    before = bench.column(run, "spec")
    done = bench.backprop("edit", run, env=editor(bench, "echo 'retries = many' >> $1"))
    kept = bench.home / "edits" / f"{run}.toml"
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
    assert f"nothing was changed; your text is kept in {kept} for the next edit" in done.stderr
    assert kept.stat().st_mode & 0o777 == 0o600
    assert bench.column(run, "spec") == before
    again = bench.backprop("edit", run, env=editor(bench, "sed -i '/many/d; s/^retries .*/retries = 4/' $1"))
    assert f"continuing with the text that was kept in {kept}" in again.stderr
    assert json.loads(str(bench.column(run, "spec")))["retries"] == 4
    assert not kept.exists()


def test_nothing_changes_without_a_change(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    for body in ("true", "echo >> $1"):
        done = bench.backprop("edit", run, env=editor(bench, body))
        assert (done.returncode, done.stdout) == (0, f"nothing changed in train ({run})\n")
    assert "priority = 0" in bench.backprop("edit", run, "--dry-run").stdout
    broken = bench.backprop("edit", run, env=editor(bench, "echo '# mine' >> $1; exit 3"))
    assert broken.returncode == 6
    assert "ended with 3; nothing was changed; the text is" in broken.stderr
    assert "# mine" in (bench.home / "edits" / f"{run}.toml").read_text()
    assert "cannot be started" in bench.backprop("edit", run, env={"VISUAL": "/no/such/editor"}).stderr


def test_a_run_that_started_meanwhile_is_left_alone(bench: Bench) -> None:
    bench.script("train.py", "import time\nprint('up', flush=True)\ntime.sleep(60)")
    run = bench.queue("train.py", "--grace-seconds", "1")
    bench.worker()
    bench.wait_for_log(run, "up")
    done = bench.backprop("edit", run)
    assert done.returncode == 10
    assert f"run {run} is running; only a queued or held run can be edited" in done.stderr
    bench.backprop("stop", run)
    bench.wait_for(run, "stopped")
    later = bench.queue("train.py", "--begin", "+1h")
    body = f"sed -i 's/^priority .*/priority = 5/' $1; backprop stop {later}"
    done = bench.backprop("edit", later, env=editor(bench, body))
    assert done.returncode == 10
    assert "changed state just now" in done.stderr
    assert "priority = 5" in (bench.home / "edits" / f"{later}.toml").read_text()
    assert bench.column(later, "priority") == 0


@pytest.mark.parametrize("point", ["edit noted", "edit in folder"])
def test_an_edit_that_dies_half_way_is_made_whole_or_not_at_all(bench: Bench, point: str) -> None:
    """Killed before and after the change of the folder, whose environment is what the command is started with."""
    run, both = prints_what_it_is(bench)
    killed = bench.backprop("edit", run, env=both | {"BACKPROP_FAILPOINT": f"{point}:kill"})
    assert killed.returncode == -signal.SIGKILL, killed
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.log(run).split() == (["new", "1"] if point == "edit in folder" else ["old", "None"])
    assert ("new.py" in bench.show(run)["command"]) == (point == "edit in folder")


@pytest.mark.parametrize("point", ["edit noted", "edit in folder"])
def test_an_edit_that_fails_half_way_changes_neither_database_nor_folder(bench: Bench, point: str) -> None:
    run, both = prints_what_it_is(bench)
    before = (bench.home / "runs" / run / "spec.json").read_bytes()
    failed = bench.backprop("edit", run, env=both | {"BACKPROP_FAILPOINT": f"{point}:raise"})
    assert (failed.returncode, failed.stderr.count("\n")) == (6, 1), failed
    assert "nothing was changed; your text is kept" in failed.stderr
    assert (bench.home / "runs" / run / "spec.json").read_bytes() == before
    assert "old.py" in bench.show(run)["command"]
    assert bench.backprop("edit", run, env={"EDITOR": "true"}).returncode == 0
    assert "new.py" in bench.show(run)["command"], "the kept text was opened again"


def prints_what_it_is(bench: Bench) -> tuple[str, dict[str, str]]:
    """Queue a run that prints its script and a variable; return it, and an editor that changes both."""
    for name in ("old", "new"):
        bench.script(f"{name}.py", f"import os; print('{name}', os.environ.get('A'))")
    return bench.queue("old.py"), editor(
        bench, """sed -i 's/old.py/new.py/; s/^.env.$/[env]\\nA = "1"/' $1"""
    )


def test_a_folder_that_cannot_be_read_is_named_in_one_line(bench: Bench) -> None:
    run, both = prints_what_it_is(bench)
    spec = bench.home / "runs" / run / "spec.json"
    kept = spec.read_bytes()
    spec.unlink()
    spec.mkdir()
    failed = bench.backprop("edit", run, env=both)
    assert (failed.returncode, failed.stderr.count("\n")) == (9, 1), failed
    assert f"{spec} cannot be used now: Is a directory" in failed.stderr
    spec.rmdir()
    spec.write_bytes(kept)
    assert bench.backprop("edit", run, env={"EDITOR": "true"}).returncode == 0
    assert "new.py" in bench.show(run)["command"], "the text was kept"
