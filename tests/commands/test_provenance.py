"""What a run was queued with: its commit and changes, its Python and packages; in whatever state the repository is."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import json_schema
from tests.support.git_projects import commit, git, repository
from tests.support.harness import Bench, wait_until

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def note(bench: Bench, run: str) -> dict[str, Any]:
    """Wait for the note of a run, and return it as `show` has it."""
    wait_until(lambda: bench.show(run)["provenance"] is not None, saw=lambda: bench.show(run))
    shown = bench.show(run)
    json_schema.check(shown, "show")
    return shown["provenance"]


def changed(noted: dict[str, Any]) -> dict[str, str]:
    return {file["path"]: file["status"] for file in noted["changed"]}


def shown_code(bench: Bench, run: str) -> str:
    lines = bench.backprop("show", run).stdout.splitlines()
    return next((line.partition("  ")[2].strip() for line in lines if line.startswith("code ")), "")


def test_a_clean_commit(bench: Bench) -> None:
    first = repository(bench.project, train_py="print(1)\n")
    run = bench.queue("train.py")
    noted = note(bench, run)
    assert (noted["commit"], noted["branch"], noted["dirty"]) == (first, "main", False)
    assert (noted["patch"], noted["changed"], noted["untracked"]) == (None, [], [])
    assert shown_code(bench, run) == f"{first[:7]}, main"


def test_the_patch_makes_the_dirty_tree_of_the_commit(bench: Bench, tmp_path: Path) -> None:
    folder = bench.project
    repository(folder, train_py="a\nb\nc", gone_py="x\n", mode_sh="#!/bin/sh\n", same_py="same\n")
    (folder / "train.py").write_text("a\nB\nc\n")
    (folder / "gone.py").unlink()
    (folder / "mode.sh").chmod(0o755)
    bench.script("new dir/mödel.py", "1\n")
    (folder / "link.py").symlink_to("train.py")
    git(folder, "add", "link.py")
    (folder / "last.ckpt").write_bytes(b"\0" * 100)
    run = bench.queue("train.py")
    noted = note(bench, run)
    assert changed(noted) == {
        "train.py": "modified",
        "gone.py": "deleted",
        "mode.sh": "modified",
        "new dir/mödel.py": "untracked",
        "link.py": "added",
    }
    assert noted["untracked"] == ["last.ckpt"]
    patch = Path(noted["patch"])
    assert patch.parent == bench.home / "runs" / run
    assert patch.stat().st_mode & 0o777 == 0o600
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(folder), str(copy))
    git(copy, "apply", "--whitespace=nowarn", "-", given=patch.read_bytes())
    for name in ("train.py", "new dir/mödel.py", "same.py", "mode.sh"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    assert (copy / "mode.sh").stat().st_mode & 0o100
    assert (copy / "link.py").readlink() == Path("train.py")
    assert not (copy / "gone.py").exists()
    assert ", + changes in 5 files" in shown_code(bench, run)


def test_what_is_large_binary_or_a_credential_is_named_and_not_copied(bench: Bench) -> None:
    folder = bench.project
    repository(folder, train_py="print(1)\n", big_txt="small\n", image_png="x", settings_env="TOKEN=old\n")
    with (folder / "big.txt").open("wb") as file:
        file.truncate(20 << 30)
    (folder / "image.png").write_bytes(b"\0\1")
    (folder / "settings.env").write_text("TOKEN=hunter2\n")
    bench.script("my_secrets.yaml", "key: hunter2")
    (folder / "long.py").write_text("x = 1\n" * 20_000)
    begun_s = time.monotonic()
    run = bench.queue("train.py")
    noted = note(bench, run)
    assert time.monotonic() - begun_s < 20, "nobody reads 20 GB"
    left = {file["path"]: file["left_out"] for file in noted["changed"]}
    assert left == {
        "big.txt": "it is too large",
        "image.png": "it is not text",
        "settings.env": "it may hold credentials",
        "my_secrets.yaml": "it may hold credentials",
        "long.py": "it is too large",
    }
    assert noted["patch"] is None
    kept = b"".join(path.read_bytes() for path in (bench.home / "runs" / run).iterdir() if path.is_file())
    assert b"hunter2" not in kept


@pytest.mark.parametrize("state", ["detached", "unborn", "worktree", "bare", "none", "no git", "damaged"])
def test_every_state_of_a_repository(bench: Bench, state: str, tmp_path: Path) -> None:
    folder, env = bench.project, dict[str, str]()
    if state == "unborn":
        bench.script("train.py", "print(1)\n")
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "train.py")
    elif state == "none":
        bench.script("train.py", "import model\n")
        bench.script("model.py", "print(1)\n")
        bench.script("other.py", "print(2)\n")
    elif state == "bare":
        git(folder, "init", "-q", "--bare")
        bench.script("train.py", "print(1)\n")
    else:
        first = repository(folder, train_py="print(1)\n")
    if state == "detached":
        git(folder, "checkout", "-q", "--detach")
    if state == "worktree":
        git(folder, "worktree", "add", "-q", str(tmp_path / "beside"), "-b", "try")
        bench.project = tmp_path / "beside"
    if state == "damaged":
        (folder / ".git" / "index").write_bytes(b"garbage")
    if state == "no git":
        (tmp_path / "bin").mkdir()
        for name in ("python3", "python"):
            (tmp_path / "bin" / name).symlink_to(sys.executable)
        env = {"PATH": str(tmp_path / "bin")}
    done = bench.backprop("run", "-q", "train.py", env=env)
    assert done.returncode == 0, done.stderr
    noted = note(bench, done.stdout.strip())
    told = (noted["git"], noted["branch"], noted["commit"] is not None)
    patch = Path(noted["patch"]).read_text() if noted["patch"] is not None else ""
    if state == "detached":
        assert told == (True, None, True)
        assert shown_code(bench, done.stdout.strip()).endswith(", detached")
    elif state == "worktree":
        assert told == (True, "try", True)
        assert (noted["commit"], noted["root"]) == (first, str(bench.project))
    elif state == "unborn":
        assert told == (True, "main", False)
        assert changed(noted) == {"train.py": "added"}
        assert "+print(1)" in patch
    else:
        assert told == (False, None, False)
        names = {"train.py", "model.py"} if state == "none" else {"train.py"}
        assert set(changed(noted)) == names, "the script, and what it imports from beside itself"
        assert "+++ b/train.py" in patch
        trouble = {"no git": "git is not installed", "damaged": "index file"}.get(state)
        assert (trouble or "") in (noted["trouble"] or "")
        assert (noted["trouble"] is None) == (trouble is None)


def test_a_repository_that_belongs_to_somebody_else(bench: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    repository(bench.project, train_py="print(1)\n")
    for path in (bench.project, bench.project / ".git"):
        os.chown(path, 12345, 12345)
    noted = note(bench, bench.queue("train.py"))
    assert noted["git"] is False
    assert "dubious ownership" in noted["trouble"]


def test_a_submodule_has_a_commit_and_changes_of_its_own(bench: Bench, tmp_path: Path) -> None:
    repository(tmp_path / "lib", model_py="a = 1\n")
    repository(bench.project, train_py="print(1)\n")
    git(bench.project, "submodule", "add", "-q", str(tmp_path / "lib"), "libs/lib")
    commit(bench.project)
    repository(bench.project / "nested", inner_py="b = 1\n")
    bench.script("libs/lib/model.py", "a = 2\n")
    noted = note(bench, bench.queue("train.py"))
    heads = {each["path"]: each["commit"] for each in noted["repositories"]}
    assert heads == {
        path: git(bench.project / path, "rev-parse", "HEAD") for path in ("", "libs/lib", "nested")
    }
    assert changed(noted) == {"model.py": "modified"}
    assert "+++ b/libs/lib/model.py" in Path(noted["patch"]).read_text()


def test_names_that_are_not_utf8(bench: Bench) -> None:
    repository(bench.project, train_py="print(1)\n")
    odd = os.fsencode(bench.project) + b"/m\xf6del.py"
    with open(odd, "wb") as file:  # noqa: PTH123
        file.write(b"old = 1\n")
    one = bench.queue("train.py")
    assert changed(note(bench, one)) == {"m\udcf6del.py": "untracked"}
    commit(bench.project)
    with open(odd, "wb") as file:  # noqa: PTH123
        file.write(b"new = 1\n")
    other = bench.queue("train.py")
    note(bench, other)
    done = bench.backprop("diff", one, other)
    assert done.returncode == 0, done.stderr
    assert "-old = 1" in done.stdout
    assert "+new = 1" in done.stdout


def test_run_is_not_held_up_by_a_slow_git(bench: Bench, tmp_path: Path) -> None:
    """Nor is whoever reads its output: the child that looks on holds no stream of it."""
    repository(bench.project, train_py="print(1)\n")
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(
        f"#!/bin/sh\nwhile [ ! -e '{tmp_path}/go' ]; do sleep 0.1; done\nexec {shutil.which('git')} \"$@\"\n"
    )
    slow.chmod(0o755)
    begun_s = time.monotonic()
    done = bench.backprop("run", "-q", "train.py", env={"PATH": f"{slow.parent}:{bench.environment['PATH']}"})
    assert time.monotonic() - begun_s < 5
    run = done.stdout.strip()
    assert bench.show(run)["provenance"] is None
    (tmp_path / "go").touch()
    assert note(bench, run)["branch"] == "main"


def test_a_refused_run_leaves_no_process_and_no_note(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    assert bench.backprop("run", "--gpus", "many", "train.py").returncode == 2
    assert bench.backprop("run", "nope.py").returncode == 6
    wait_until(lambda: not bench.left(), saw=bench.left)
    assert not (bench.home / "runs").exists() or not list((bench.home / "runs").iterdir())


def test_runs_queued_together_share_a_note(bench: Bench) -> None:
    first = repository(bench.project, train_py="print(1)\n", eval_py="print(2)\n")
    assert bench.backprop("run", "--grid", "lr=1,2", "train.py", "--", "{lr}").returncode == 0
    (bench.project / "all").write_text("train.py\neval.py\n")
    assert bench.backprop("run", "--batch", "all").returncode == 0
    runs = [run["id"] for run in bench.runs()]
    assert len(runs) == 4
    assert {note(bench, run)["commit"] for run in runs} == {first}
    bench.backprop("rm", *runs)
    assert not list((bench.home / "batches").glob("*/provenance*"))


def test_a_restored_database_has_the_notes(bench: Bench) -> None:
    first = repository(bench.project, train_py="print(1)\n")
    run = bench.queue("train.py", "--hold")
    note(bench, run)
    for path in bench.home.glob("backprop.db*"):
        path.unlink()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert note(bench, run)["commit"] == first


def test_packages_are_kept_once_and_compared_one_by_one(bench: Bench, tmp_path: Path) -> None:
    """No Python is started for it: this one has none that could be."""
    bench.script("train.py", "print(1)")
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    trace = tmp_path / "executed"
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\ntouch '{trace}'\n")
    python.chmod(0o755)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /nowhere\nversion = 3.11.9\n")
    (site / "torch-2.1.0+cpu.dist-info").mkdir(parents=True)
    (site / "mine-1.0.dist-info").mkdir()
    url = {"url": "git+https://user:hunter2@host/mine", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}
    (site / "mine-1.0.dist-info" / "direct_url.json").write_text(json.dumps(url))
    one, same = (bench.queue("train.py", "--python", str(python)) for _ in range(2))
    noted = [note(bench, run)["python"] for run in (one, same)]
    assert noted[0] == noted[1]
    assert (noted[0]["version"], noted[0]["packages"]) == ("3.11.9", 2)
    listed = Path(noted[0]["packages_file"]).read_text()
    assert json.loads(listed)["packages"] == {"mine": "1.0 @ aaaaaaaaaaaa", "torch": "2.1.0+cpu"}
    assert "hunter2" not in listed
    (site / "torch-2.1.0+cpu.dist-info").rename(site / "torch-2.2.0+cpu.dist-info")
    other = bench.queue("train.py", "--python", str(python))
    assert note(bench, other)["python"]["packages_digest"] != noted[0]["packages_digest"]
    told = json.loads(bench.backprop("diff", one, other, "--json").stdout)
    assert [(each["name"], each["a"], each["b"]) for each in told["packages"]["differs"]] == [
        ("torch", "2.1.0+cpu", "2.2.0+cpu")
    ]
    assert not trace.exists()


def test_a_note_that_is_damaged_or_of_a_later_version_counts_as_none(bench: Bench) -> None:
    repository(bench.project, train_py="print(1)\n")
    run = bench.queue("train.py")
    note(bench, run)
    path = bench.home / "runs" / run / "provenance.json"
    later = json.dumps(json.loads(path.read_text()) | {"format": 2})
    for text in ("", "[]", "{", '{"format": 1}', later):
        path.write_text(text)
        assert bench.show(run)["provenance"] is None
        assert "code " not in bench.backprop("show", run).stdout
        assert bench.backprop("diff", run, run).returncode == 0
