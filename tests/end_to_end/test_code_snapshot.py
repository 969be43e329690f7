"""`--snapshot-code`: every segment runs the code as it was when the run was queued, whatever is edited meanwhile."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.spec import RunSpec
from backprop.worker.environment import code_snapshot, snapshot_paths
from tests.support.harness import Bench, wait_until

TRAIN = """
    import json, os, pathlib, sys, time
    import sibling
    number = int(os.environ["BACKPROP_SEGMENT"])
    config = json.loads(pathlib.Path(sys.argv[1].partition("=")[2]).read_text())
    with open("said", "a") as file:
        print(json.dumps([number, "old script", sibling.SAYS, config["says"], os.getcwd()]), file=file)
    pathlib.Path("last.ckpt").write_text(str(number))
    print(json.dumps({"event": "checkpoint_saved", "path": "last.ckpt", "step": number}), flush=True)
    while number == 1 and not os.path.exists("go-on"):
        time.sleep(0.05)
    sys.exit(75 if number < 3 else 0)
"""


def project(bench: Bench, git: bool) -> Path:
    folder = bench.project
    bench.script("train.py", TRAIN)
    bench.script("sibling.py", "SAYS = 'old sibling'")
    bench.script("conf/base.json", '{"says": "old config"}')
    if git:
        run_git(folder, "init", "-q")
        bench.script(".gitignore", "said\ndata/\n*.ckpt\n")
        run_git(folder, "add", "train.py", ".gitignore")
        run_git(folder, "commit", "-q", "-m", "first")
    bench.script("data/x.bin", "data")
    return folder


def run_git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.com")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def edit_everything(folder: Path) -> None:
    for name in ("train.py", "sibling.py", "conf/base.json"):
        path = folder / name
        path.write_text(path.read_text().replace("old", "new"))


def said(folder: Path) -> list[list[object]]:
    return [json.loads(line) for line in (folder / "said").read_text().splitlines()]


def edited_at_midnight(bench: Bench, *words: str) -> list[list[object]]:
    """Queue, run a segment, edit everything while it runs, let it go on to its end; what each segment ran."""
    folder = bench.project
    run = bench.queue(*words, "train.py", "--", "--config=conf/base.json")
    worker = bench.worker("--drain")
    wait_until((folder / "said").exists, saw=bench.output)
    edit_everything(folder)
    (folder / "go-on").touch()
    assert worker.wait(timeout=60) == 0, bench.output()
    assert bench.state(run) == "completed", bench.show(run)
    assert bench.show(run)["command"] == "python train.py --config=conf/base.json", "as it was typed"
    return said(folder)


@pytest.mark.parametrize("git", [True, False], ids=["git", "no git"])
def test_what_is_edited_at_midnight_changes_nothing(bench: Bench, git: bool) -> None:
    """Script, a module beside it and a configuration; two of them never committed."""
    if git and shutil.which("git") is None:
        pytest.skip("needs git")
    folder = project(bench, git)
    old = ["old script", "old sibling", "old config", str(folder)]
    assert edited_at_midnight(bench, "--snapshot-code") == [[number, *old] for number in (1, 2, 3)]
    assert not (folder / "__pycache__").exists(), "nothing was imported from the project"


def test_without_it_the_next_segment_runs_what_is_there_then(bench: Bench) -> None:
    project(bench, git=False)
    told = edited_at_midnight(bench)
    assert told[0][1:4] == ["old script", "old sibling", "old config"]
    assert told[1][1:4] == ["new script", "new sibling", "new config"]


def test_a_module_and_what_it_starts_run_from_the_snapshot(bench: Bench) -> None:
    bench.script("pkg/__init__.py", "")
    bench.script("pkg/deep.py", "SAYS = 'old'")
    bench.script(
        "pkg/main.py",
        """
        import subprocess, sys
        from pkg import deep
        print(deep.SAYS, flush=True)
        subprocess.run([sys.executable, *sys.argv[1:]], check=True)
        """,
    )
    bench.script("tools/train.py", "import beside; print(beside.SAYS, flush=True)")
    bench.script("tools/beside.py", "SAYS = 'old too'")
    run = bench.queue("--snapshot-code", "--", "python", "-m", "pkg.main", "tools/train.py")
    for name in ("pkg/deep.py", "tools/beside.py"):
        (bench.project / name).write_text("SAYS = 'edited'")
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.log(run).split("\n")[:2] == ["old", "old too"], bench.log(run)


def test_a_repaired_script_is_resumed_with_the_code_as_it_is_now(bench: Bench) -> None:
    bench.script("train.py", "print('broken'); raise SystemExit(1)")
    run = bench.queue("--snapshot-code", "train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    bench.script("train.py", "print('repaired')")
    for words, said, state in ((), "broken", "failed"), (("--snapshot-code",), "repaired", "completed"):
        assert bench.backprop("resume", run, *words).returncode == 0
        assert bench.worker("--drain").wait(timeout=60) == 0
        assert bench.state(run) == state
        assert bench.log(run, bench.show(run)["segment_count"]) == f"{said}\n"
    bench.script("train.py", "print('live')")
    assert bench.backprop("resume", run, "--no-snapshot-code").returncode == 0
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.log(run, 4) == "live\n"


def test_ignored_data_is_found_beside_the_script_and_outputs_land_in_the_project(bench: Bench) -> None:
    folder = project(bench, git=shutil.which("git") is not None)
    bench.script(
        "train.py",
        """
        import pathlib, sys
        here = pathlib.Path(__file__).parent
        print((here / "data" / "x.bin").read_text())
        (here / "data" / "made").write_text("beside")
        pathlib.Path("out.txt").write_text("relative")
        pathlib.Path(sys.argv[2]).write_text("named")
        """,
    )
    bench.script("results.json", "{}")
    run = bench.queue("--snapshot-code", "train.py", "--", "--out", "results.json")
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "completed", bench.log(run)
    assert bench.log(run) == "data\n"
    assert (folder / "data" / "made").read_text() == "beside"
    assert (folder / "out.txt").exists()
    assert (folder / "results.json").read_text() == "named"


def test_too_much_to_be_code_is_refused_and_nothing_queued(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    with (bench.project / "huge.json").open("wb") as file:
        file.truncate(code_snapshot.MAX_BYTES + 1)
    done = bench.backprop("run", "--snapshot-code", "train.py")
    assert done.returncode == 6
    assert "huge.json" in done.stderr
    assert "queue without it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (bench.home / "runs").exists() or not list((bench.home / "runs").iterdir())


def test_a_crash_while_copying_queues_nothing(bench: Bench) -> None:
    """Killed in the middle of it: the folder is no run, and no worker takes it for one."""
    bench.script("train.py", "print(1)")
    words = ("run", "--snapshot-code", "--run-id", "cut", "train.py")
    assert (
        bench.backprop(*words, env={"BACKPROP_FAILPOINT": "code copied:kill"}).returncode == -signal.SIGKILL
    )
    assert (bench.home / "runs" / "cut" / "code" / "train.py").exists()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.runs() == []


def test_a_snapshot_that_is_gone_is_said(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("--snapshot-code", "train.py")
    (bench.home / "runs" / run / "code.json").unlink()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "failed"
    assert "snapshot is gone" in str(bench.column(run, "reason"))


def test_what_cannot_be_held_still_is_said_when_queueing(bench: Bench) -> None:
    bench.script("train.sh", "python train.py")
    done = bench.backprop("run", "--snapshot-code", "--dry-run", "--", "bash", "train.sh")
    assert "$BACKPROP_CODE" in done.stderr
    site = bench.project / ".venv" / "lib" / "python3.11" / "site-packages" / "mine-1.0.dist-info"
    site.mkdir(parents=True)
    told = {"url": f"file://{bench.project}", "dir_info": {"editable": True}}
    (site / "direct_url.json").write_text(json.dumps(told))
    (bench.project / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (bench.project / ".venv" / "bin").mkdir()
    (bench.project / ".venv" / "bin" / "python").symlink_to(shutil.which("python3") or "/usr/bin/python3")
    bench.script("train.py", "print(1)")
    words = ("--snapshot-code", "--python", str(bench.project / ".venv/bin/python"), "--dry-run", "train.py")
    assert "mine is installed in editable mode" in bench.backprop("run", *words).stderr


def spec_of(folder: Path, *argv: str, script: str | None = None) -> RunSpec:
    named = str(folder / script) if script else None
    return RunSpec(argv=argv, program="/usr/bin/python3", cwd=str(folder), script=named)


def test_links_lead_into_the_copy_or_stay_where_they_lead(tmp_path: Path) -> None:
    root, folder = tmp_path / "project", tmp_path / "run"
    (root / "pkg").mkdir(parents=True)
    folder.mkdir()
    (root / "pkg" / "real.py").write_text("1")
    (root / "pkg" / "inside.py").symlink_to("real.py")
    (root / "absolute.py").symlink_to(root / "pkg" / "real.py")
    (tmp_path / "elsewhere.py").write_text("2")
    (root / "outside.py").symlink_to("../elsewhere.py")
    (root / "train.py").write_text("3")
    code = code_snapshot.find(spec_of(root, "python3", "train.py", script="train.py"), tmp_path / "home")
    copy = code_snapshot.take(code, folder)
    for name in ("pkg/inside.py", "absolute.py"):
        assert Path(os.path.realpath(copy / name)) == copy / "pkg" / "real.py"
    assert (copy / "outside.py").read_text() == "2"


def test_arguments_that_name_code_are_turned_and_others_are_not(tmp_path: Path) -> None:
    root, folder = tmp_path / "project", tmp_path / "run"
    (root / "conf").mkdir(parents=True)
    folder.mkdir()
    for name in ("train.py", "conf/a.yaml", "out.json", "model.pt"):
        (root / name).write_text("{}")
    words = ("train.py", "--config", "conf/a.yaml", "--over=conf/a.yaml", "--out", "out.json", "--out=out.json",
             "model.pt", "missing.yaml", "conf", "lr=1e-3", "/etc/hosts")  # fmt: skip
    spec = spec_of(root, "python3", *words, script="train.py")
    code = code_snapshot.take(code_snapshot.find(spec, tmp_path / "home"), folder)
    shell = {"PYTHONPATH": f"{root}/conf:/elsewhere"}
    told = snapshot_paths.snapshot_command(msgspec.structs.replace(spec, code=str(code)), shell)
    assert told.spec.argv == (
        *("python3", f"{code}/train.py", "--config", f"{code}/conf/a.yaml", f"--over={code}/conf/a.yaml"),
        *("--out", "out.json", "--out=out.json", "model.pt", "missing.yaml", "conf", "lr=1e-3", "/etc/hosts"),
    )
    assert told.spec.cwd == str(root)
    assert told.environment["PYTHONPATH"] == f"{code}/conf:/elsewhere"
    assert "PYTHONSAFEPATH" not in told.environment
