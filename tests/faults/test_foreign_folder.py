"""A folder from somebody else cannot say what is executed: not by git's configuration, not by our own, not by a file
that has a program's name."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Bench, wait_until

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *words: str) -> None:
    """Run git as the folder's author would. `protocol.file.allow`: for the copy over file://."""
    who = ("-c", "user.name=me", "-c", "user.email=me@example.com", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def trap(bench: Bench) -> tuple[Path, Path]:
    """Return a program that leaves a trace, and the trace."""
    trace = bench.home.parent / "executed"
    program = bench.home.parent / "trap"
    program.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{trace}'\nexit 1\n")
    program.chmod(0o755)
    return program, trace


def partial_clone(bench: Bench, program: Path) -> None:
    """Make the project a clone that lacks what `ls-files` reads, and whose other end is a program of its own choice."""
    source = bench.home.parent / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / ".gitignore").write_text("x\n")
    (source / "train.py").write_text("print(1)\n")
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "first")
    git(source, "config", "uploadpack.allowFilter", "true")
    git(source, "config", "uploadpack.allowAnySHA1InWant", "true")
    bench.project.rmdir()
    clone = ("clone", "-q", "--no-local", "--filter=blob:none", "--no-checkout", f"file://{source}")
    git(bench.project.parent, *clone, str(bench.project))
    git(bench.project, "sparse-checkout", "set", "--no-cone", "/train.py")
    git(bench.project, "checkout", "-q")
    (bench.project / "deep").mkdir()
    (bench.project / "deep" / "new.py").write_text("")
    git(bench.project, "config", "remote.origin.uploadpack", str(program))
    git(bench.project, "config", "protocol.file.allow", "always")


def hostile_settings(bench: Bench, program: Path) -> None:
    """Make the project a repository that names a program wherever git's configuration takes one."""
    bench.script("train.py", "print(1)")
    git(bench.project, "init", "-q")
    git(bench.project, "add", "-A")
    git(bench.project, "commit", "-q", "-m", "first")
    hooks = bench.project / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "post-checkout", "pre-commit", "fsmonitor-watchman"):
        (hooks / name).symlink_to(program)
    for key in (
        "core.fsmonitor",
        "core.pager",
        "pager.ls-files",
        "core.sshCommand",
        "core.editor",
        "core.askPass",
    ):
        git(bench.project, "config", key, str(program))
    git(bench.project, "config", "core.hooksPath", str(hooks))
    for name in ("ls-files", "rev-parse"):
        git(bench.project, "config", f"alias.{name}", f"!{program}")
    git(bench.project, "config", "filter.trap.clean", str(program))
    git(bench.project, "config", "filter.trap.process", str(program))
    git(bench.project, "config", "filter.trap.required", "true")
    for key in ("textconv", "command"):
        git(bench.project, "config", f"diff.trap.{key}", str(program))
    git(bench.project, "config", "diff.external", str(program))
    bench.script(".gitattributes", "* filter=trap diff=trap\n")


@pytest.mark.parametrize("make", [partial_clone, hostile_settings])
@pytest.mark.parametrize("words", [("--dry-run",), ("-q",)], ids=["dry run", "run"])
def test_git_executes_nothing_that_a_repository_names(
    bench: Bench, make: object, words: tuple[str, ...]
) -> None:
    assert callable(make)
    program, trace = trap(bench)
    make(bench, program)
    done = bench.backprop("run", *words, "--snapshot-code", "train.py")
    assert not trace.exists(), trace.read_text()
    if make is partial_clone:
        assert done.returncode == 6, done
        assert "git ls-files failed" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (bench.home / "runs").exists() or not list((bench.home / "runs").iterdir())
    else:
        assert done.returncode == 0, done.stderr


def noted(bench: Bench, run: str) -> dict[str, Any]:
    wait_until(lambda: bench.show(run)["provenance"] is not None, saw=lambda: bench.show(run))
    return bench.show(run)["provenance"]


@pytest.mark.parametrize("make", [partial_clone, hostile_settings])
@pytest.mark.parametrize("where", ["", "inner"], ids=["repository", "inside another"])
def test_what_a_run_is_queued_with_is_noted_and_compared_without_executing_anything(
    bench: Bench, make: object, where: str
) -> None:
    assert callable(make)
    program, trace = trap(bench)
    outer = bench.project
    if where:
        git(outer, "init", "-q")
        bench.project = outer / where
        bench.project.mkdir()
    make(bench, program)
    bench.project = outer
    bench.script(f"{where}/train.py" if where else "train.py", "print(2)")
    bench.script("train.py", "print(2)")
    one = bench.queue("train.py", "--hold")
    found = noted(bench, one)
    heads = {each["path"]: each["commit"] for each in found["repositories"]}
    assert heads[where] is not None, "it was looked at"
    assert ("train.py", where) in {(each["path"], each["repository"]) for each in found["changed"]}
    bench.script(f"{where}/train.py" if where else "train.py", "print(3)")
    # Another commit, so that trees are read too. Made without anything that the trap would spring at.
    inside = {"cwd": outer / where, "check": True, "capture_output": True, "text": True}
    plain = ("git", "-c", "core.hooksPath=/dev/null", "-c", "user.name=me", "-c", "user.email=me@example.com")
    made = subprocess.run([*plain, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "second"], **inside)
    subprocess.run([*plain, "update-ref", "HEAD", made.stdout.strip()], **inside)
    assert not trace.exists(), trace.read_text()
    other = bench.queue("train.py")
    noted(bench, other)
    assert "train.py" in bench.backprop("diff", one, other).stdout
    for words in (("edit", one, "-m", "5"), ("resume", one), ("show", one)):
        done = bench.backprop(*words)
        assert done.returncode == 0, done.stderr
    assert not trace.exists(), trace.read_text()


def test_a_filter_that_cannot_be_switched_off_keeps_git_from_being_asked(bench: Bench) -> None:
    """`-c filter.a=b.clean=` would set something else."""
    program, trace = trap(bench)
    hostile_settings(bench, program)
    git(bench.project, "config", "filter.a=b.clean", str(program))
    bench.script(".gitattributes", "* filter=a=b\n")
    bench.script("train.py", "print(2)")
    found = noted(bench, bench.queue("train.py"))
    assert found["trouble"] == "it names filters that cannot be switched off"
    assert not trace.exists(), trace.read_text()


def test_the_filters_are_a_trap_for_a_plain_git(bench: Bench) -> None:
    program, trace = trap(bench)
    hostile_settings(bench, program)
    bench.script("train.py", "print(2)")
    subprocess.run(["git", "diff"], cwd=bench.project, check=False, capture_output=True)
    assert trace.exists()


def test_the_partial_clone_is_a_trap_for_a_plain_git(bench: Bench) -> None:
    """Otherwise the test above would show nothing."""
    program, trace = trap(bench)
    partial_clone(bench, program)
    subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=bench.project, check=False, capture_output=True
    )
    assert trace.exists()


def test_a_repository_inside_the_repository_executes_nothing_either(bench: Bench) -> None:
    """A submodule, or a clone in the folder, has a configuration of its own."""
    program, trace = trap(bench)
    outer = bench.project
    bench.project = outer / "inner"
    bench.project.mkdir()
    partial_clone(bench, program)
    bench.project = outer
    bench.script("train.py", "print(1)")
    git(outer, "init", "-q")
    done = bench.backprop("run", "--dry-run", "--snapshot-code", "train.py")
    assert not trace.exists(), trace.read_text()
    assert done.returncode == 6, done


def test_a_working_tree_elsewhere_is_not_taken_for_the_code(bench: Bench) -> None:
    """`core.worktree` would have the files of another folder copied."""
    secret = bench.home.parent / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("secret")
    bench.script("train.py", "print(1)")
    git(bench.project, "init", "-q")
    git(bench.project, "config", "core.worktree", str(secret))
    run = bench.queue("--snapshot-code", "train.py")
    copied = {path.name for path in (bench.home / "runs" / run / "code").rglob("*") if path.is_file()}
    assert copied == {"train.py"}


@pytest.mark.parametrize("entry", [".", "", "bin"])
def test_a_git_of_the_folders_own_is_not_found(bench: Bench, entry: str) -> None:
    program, trace = trap(bench)
    bench.script("train.py", "print(1)")
    (bench.project / "bin").mkdir()
    for folder in (bench.project, bench.project / "bin"):
        (folder / "git").symlink_to(program)
    path = f"{entry}:{bench.environment['PATH']}"
    done = bench.backprop("run", "--dry-run", "--snapshot-code", "train.py", env={"PATH": path})
    assert done.returncode == 0, done.stderr
    assert not trace.exists(), trace.read_text()


@pytest.mark.parametrize("name", ["backprop.config.json", ".backprop.json", "pyproject.toml"])
@pytest.mark.parametrize(
    "command", [("run", "train.py"), ("config",), ("worker", "--drain")], ids=lambda c: c[0]
)
def test_a_project_cannot_switch_the_snapshot_on(bench: Bench, name: str, command: tuple[str, ...]) -> None:
    bench.script("train.py", "print(1)")
    toml = name.endswith(".toml")
    bench.script(name, "[tool.backprop]\nsnapshotCode = true\n" if toml else '{"snapshotCode": true}')
    done = bench.backprop(*command)
    assert done.returncode == 5, done
    assert len(done.stderr.splitlines()) == 1
    assert "snapshotCode may not be set by a project file" in done.stderr
    assert "--snapshot-code" in done.stderr


def test_the_users_own_file_can(bench: Bench) -> None:
    bench.home.mkdir(mode=0o700)
    (bench.home / "config.json").write_text(json.dumps({"snapshotCode": True}))
    bench.script("train.py", "print(1)")
    assert (bench.home / "runs" / bench.queue("train.py") / "code" / "train.py").is_file()
    assert not (bench.home / "runs" / bench.queue("--no-snapshot-code", "train.py") / "code").exists()


def test_an_editor_is_started_away_from_the_folder(bench: Bench) -> None:
    """Editors read settings of the folder that they are started in, and some of those execute."""
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py", "--hold")
    editor = bench.script("bin/editor", f"#!/bin/sh\npwd > '{bench.home.parent}/where'\n")
    editor.chmod(0o755)
    done = bench.backprop("edit", run, env={"EDITOR": "bin/editor", "VISUAL": ""})
    assert done.returncode == 0, done.stderr
    assert (bench.home.parent / "where").read_text().strip() == str(bench.home / "edits")
