"""`backprop diff`: in what two runs differ. `resume` and `edit` say that the code is no longer what was queued."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from backprop.cli.render.differences import arguments, masking
from backprop.worker.environment.provenance import patches
from backprop.worker.environment.provenance.patches import Content
from tests.support import json_schema
from tests.support.git_projects import commit, git, repository
from tests.support.harness import Bench, wait_until

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def queued(bench: Bench, *words: str) -> str:
    """Queue a run, and wait until it has its note."""
    run = bench.queue(*words)
    wait_until(lambda: bench.show(run)["provenance"] is not None, saw=lambda: bench.show(run))
    return run


def told(bench: Bench, a: str, b: str) -> dict[str, Any]:
    done = bench.backprop("diff", a, b, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    json_schema.check(value, "diff")
    return value


def files(value: dict[str, Any]) -> dict[str, str]:
    return {file["path"]: file["kind"] for file in value["code"]["files"]}


def test_everything_that_differs_is_told_and_credentials_are_hidden(bench: Bench) -> None:
    folder = bench.project
    repository(folder, train_py="lr = 1\nprint(lr)\n", gone_py="x\n")
    (folder / "train.py").write_text("lr = 2\nprint(lr)\n")
    bench.environment |= {"HF_TOKEN": "hunter2hunter2", "MODE": "a", "SAME": "x"}
    one = queued(bench, "train.py", "-m", "5", "--", "--lr", "1", "--flag", "--api-key", "hunter3")
    (folder / "train.py").write_text("lr = 3\nprint(lr)\n")
    (folder / "gone.py").unlink()
    bench.script("model.py", "a = 1\n")
    commit(folder)
    bench.environment |= {"HF_TOKEN": "hunter4hunter4", "MODE": "b"}
    words = (
        "-m",
        "10",
        "--checkpoint-every-minutes",
        "1",
        "train.py",
        "--",
        "--lr",
        "-2",
        "--api-key",
        "hunter5",
    )
    other = queued(bench, *words)
    value = told(bench, one, other)
    assert files(value) == {"train.py": "changed", "gone.py": "only in A", "model.py": "only in B"}
    patch = next(file["patch"] for file in value["code"]["files"] if file["path"] == "train.py")
    assert patch.splitlines()[3:] == ["@@ -1,2 +1,2 @@", "-lr = 2", "+lr = 3", " print(lr)"]
    differing = {
        section: {each["name"]: (each["a"], each["b"]) for each in value[section]["differs"]}
        for section in ("arguments", "environment", "packages", "checkpoints", "settings", "metrics")
    }
    assert differing["arguments"] == {
        "--lr": ("1", "-2"),
        "--flag": ("", None),
        "--api-key": ("(hidden)", "(hidden)"),
    }
    assert differing["environment"] == {"HF_TOKEN": ("(hidden)", "(hidden)"), "MODE": ("a", "b")}
    assert differing["settings"]["timebox_s"] == ("300", "600")
    assert differing["checkpoints"]["checkpoint_every_s"] == (None, "60")
    assert differing["packages"] == differing["metrics"] == {}
    assert value["same"] is False
    text = bench.backprop("diff", one, other)
    assert "hunter" not in text.stdout + json.dumps(value)
    assert "\x1b" not in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80, text.stdout
    for line in (
        "-lr = 2",
        "+lr = 3",
        "  --lr  1 → -2",
        "  only in B  model.py",
        "the same: packages, metrics",
    ):
        assert line in text.stdout.splitlines(), text.stdout
    stat = bench.backprop("diff", one, other, "--stat").stdout
    assert "  changed    train.py" in stat
    assert "lr = 2" not in stat
    assert told(bench, one, one)["same"] is True


def test_the_same_files_by_another_commit_are_the_same(bench: Bench) -> None:
    """What was queued dirty and then committed is one state of the code."""
    repository(bench.project, train_py="print(1)\n", data_txt="1\n")
    bench.script("train.py", "print(2)\n")
    bench.script("new.py", "a = 1\n")
    one = queued(bench, "train.py")
    commit(bench.project)
    other = queued(bench, "train.py")
    assert told(bench, one, other)["code"] == {"unknown": [], "files": []}
    assert "code" in bench.backprop("diff", one, other).stdout.splitlines()[-1]
    bench.script("train.py", "print(1)\n")
    assert files(told(bench, one, queued(bench, "train.py"))) == {"train.py": "changed"}


def test_what_is_not_known_is_said(bench: Bench) -> None:
    repository(bench.project, train_py="print(1)\n", model_py="a = 1\n")
    one = queued(bench, "train.py")
    bench.script("train.py", "print(2)\n")
    with (bench.project / "model.py").open("wb") as file:
        file.truncate(1 << 20)
    commit(bench.project)
    other = queued(bench, "train.py")
    shown = {file["path"]: file["unknown"] for file in told(bench, one, other)["code"]["files"]}
    assert shown == {"train.py": None, "model.py": "its committed content is too large, or not here"}
    shutil.rmtree(bench.project / ".git")
    (unknown,) = told(bench, one, other)["code"]["unknown"]
    assert "which is in no repository here" in unknown
    for path in (bench.home / "runs" / one).glob("provenance*"):
        path.unlink()
    assert told(bench, one, other)["code"]["unknown"] == ["a run without a note"]
    assert "A  not noted" in bench.backprop("diff", one, other).stdout


def test_a_snapshot_tells_what_no_repository_does(bench: Bench) -> None:
    bench.script("train.py", "print(1)\n")
    bench.script("conf.yaml", "lr: 1\n")
    one = queued(bench, "--snapshot-code", "train.py")
    bench.script("train.py", "print(2)\n")
    other = queued(bench, "--snapshot-code", "train.py")
    (file,) = told(bench, one, other)["code"]["files"]
    assert file["patch"].splitlines()[4:] == ["-print(1)", "+print(2)"]
    for path in (bench.home / "runs" / one).glob("code-*.patch"):
        path.unlink()
    assert told(bench, one, other)["code"]["files"] == [file]


@pytest.mark.parametrize(("words", "code"), [(("nope", "nope"), 3), (("train",), 2), (("train", "train"), 4)])
def test_what_is_refused_is_one_line(bench: Bench, words: tuple[str, ...], code: int) -> None:
    bench.script("train.py", "print(1)\n")
    bench.queue("train.py")
    bench.queue("train.py")
    done = bench.backprop("diff", *words)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1


def test_resume_and_edit_say_that_the_code_has_changed(bench: Bench) -> None:
    first = repository(bench.project, train_py="print(1)\n")
    run = queued(bench, "train.py", "--hold")
    frozen = queued(bench, "train.py", "--hold", "--snapshot-code")
    quiet = bench.backprop("edit", run, "-m", "5", "--json")
    assert json.loads(quiet.stdout)["runs"][0]["code_changed"] is False
    assert "has changed" not in quiet.stderr
    bench.script("train.py", "print(2)\n")
    second = commit(bench.project)
    bench.script("results.json", "{}")
    line = f"the code has changed since {run} was queued (commit {first[:7]}, now {second[:7]}): train.py"
    edited = bench.backprop("edit", run, "-m", "6")
    assert edited.stderr.splitlines() == [f"note: {line}"]
    assert line in bench.backprop("resume", run, "--dry-run").stderr
    resumed = json.loads(bench.backprop("resume", run, frozen, "--json").stdout)
    json_schema.check(resumed, "verb")
    assert {each["id"]: each.get("code_changed") for each in resumed["runs"]} == {run: True, frozen: None}
    assert line in resumed["notes"]
    # What it goes on with is noted beside what it was queued with.
    assert bench.show(run)["provenance"]["commit"] == second
    assert bench.show(frozen)["provenance"]["commit"] == first


def test_a_resume_after_a_segment_is_a_note_of_its_own(bench: Bench) -> None:
    first = repository(bench.project, train_py="raise SystemExit(1)\n")
    run = queued(bench, "train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    bench.script("train.py", "print(2)\n")
    assert "train.py" in bench.backprop("resume", run).stderr
    noted = bench.show(run)["provenance"]
    assert (noted["after_segment"], noted["commit"], noted["dirty"]) == (1, first, True)
    assert "since its resume after segment 1" in bench.backprop("show", run).stdout
    assert (bench.home / "runs" / run / "provenance.json").exists()


def test_a_copy_of_a_run_has_a_note_of_its_own(bench: Bench) -> None:
    repository(bench.project, train_py="print(1)\n")
    run = queued(bench, "train.py")
    bench.script("train.py", "print(2)\n")
    second = commit(bench.project)
    done = bench.backprop("resume", run, "--as-new", "--json")
    new = json.loads(done.stdout)["runs"][0]["new_id"]
    wait_until(lambda: bench.show(new)["provenance"] is not None)
    assert bench.show(new)["provenance"]["commit"] == second


@pytest.mark.parametrize("seed", range(3))
def test_a_patch_is_taken_by_git_and_by_us(tmp_path: Path, seed: int) -> None:
    import random

    chance = random.Random(seed)
    kinds = [b"a\n", b"b\n", b"-- x\n", b"@@ -1 +1 @@\n", b"\\ z\n", b"c\r\n", b"\n", b"diff --git a/x b/x\n"]
    for number in range(15):
        old = [chance.choice(kinds) for _ in range(chance.randrange(40))]
        new = list(old)
        for _ in range(chance.randrange(5)):
            at = chance.randrange(len(new) + 1)
            new[at : at + chance.randrange(3)] = [chance.choice([b"new\n", b"++ y\n"])] * chance.randrange(3)
        ends = [chance.choice([b"", b"end"]) for _ in range(2)]
        before, after = b"".join(old) + ends[0], b"".join(new) + ends[1]
        name = f'sp ace\tq"\\é{number}'
        section = patches.patch(name.encode(), Content("100644", before), Content("100755", after))
        assert patches.apply(section, before) == after
        assert list(patches.sections(section)) == [patches.heading(name.encode())]
        (tmp_path / name).write_bytes(before)
        git(tmp_path, "apply", "--whitespace=nowarn", "-", given=section)
        assert (tmp_path / name).read_bytes() == after


def test_a_patch_of_something_else_is_refused() -> None:
    section = patches.patch(b"x", Content("100644", b"a\n"), Content("100644", b"b\n"))
    for old, text in (b"c\n", section), (b"a\n", section.removesuffix(b"+b\n")):
        with pytest.raises(ValueError, match="the patch"):
            patches.apply(text, old)


def test_arguments_are_compared_by_name() -> None:
    words = [
        "train.py",
        "--lr",
        "-1e-3",
        "--wd=0",
        "model.depth=3",
        "--flag",
        "--seed",
        "1",
        "--seed",
        "2",
        "x",
    ]
    assert arguments.by_name(words) == {
        "--lr": "-1e-3",
        "--wd": "0",
        "model.depth": "3",
        "--flag": "",
        "--seed": "1 2",
        arguments.REST: "train.py x",
    }


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("WANDB_API_KEY", "x", True),
        ("AWS_ACCESS_KEY_ID", "x", True),
        ("HF_TOKEN", "x", True),
        ("DB_PASSWORD", "x", True),
        ("PGPASSWORD", "x", True),
        ("--auth-token", "x", True),
        ("URL", "https://me:pw@host/x", True),
        ("ANYTHING", "ghp_0123456789abcdef0123", True),
        ("PWD", "/home", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("MONKEY", "x", False),
        ("--lr", "3e-4", False),
        ("URL", "https://host:8080/x@y", False),
    ],
)
def test_what_looks_like_a_credential(name: str, value: str, secret: bool) -> None:
    assert masking.looks_secret(name, value) is secret
