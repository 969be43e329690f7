"""What a shell offers after Tab, asked the way the shells ask, and in bash itself."""

import shutil
import subprocess

import pytest

from backprop.cli.main import COMMANDS
from tests.support.harness import COMMAND, ROOT, Bench
from tests.support.refusals import at_home


def offered(bench: Bench, *words: str) -> list[str]:
    """What is offered for the last of `words`, which may be half typed."""
    line = " ".join(["backprop", *words])
    done = bench.backprop(
        env={
            "_BACKPROP_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words)),
        }
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [text.partition(",")[2] for text in done.stdout.splitlines() if text]


@pytest.fixture
def filled(bench: Bench) -> Bench:
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "--run-id", "abc1", "-n", "wide", "--group", "sweep")
    bench.queue("train.py", "--run-id", "abd2", "-n", "deep")
    return bench


def test_commands_options_runs_names_and_groups(filled: Bench) -> None:
    assert set(offered(filled, "")) == set(COMMANDS)
    assert offered(filled, "dra") == ["drain"]
    assert "--max-run-minutes" in offered(filled, "run", "--max")
    for command in ("show", "why", "status", "logs", "stop", "resume", "hold", "release", "move", "edit"):
        assert offered(filled, command, "ab") == ["abd2", "abc1"], command
    assert offered(filled, "stop", "wi") == ["wide"]
    assert set(offered(filled, "stop", "abc1", "")) == {"abc1", "abd2", "wide", "deep", "sweep"}
    assert offered(filled, "list", "--group", "s") == ["sweep"]
    assert offered(filled, "list", "--state", "queued,fa") == ["queued,failed"]
    assert offered(filled, "move", "abc1", "--before", "abd") == ["abd2"]
    assert offered(filled, "run", "--after", "abc1,de") == ["abc1,deep"]
    for words in (("run", "tra"), ("drill", "tra"), ("run", "--params", "t"), ("resume", "abc1", "-r", "t")):
        assert offered(filled, *words) == [words[-1]], "the shell's own offer of files"
    assert offered(filled, "completion", "") == ["bash", "zsh", "fish"]


def test_trouble_is_silent_and_nothing_is_made(bench: Bench) -> None:
    assert offered(bench, "stop", "") == []
    assert at_home(bench) is None
    bench.home.mkdir(mode=0o700)
    (bench.home / "backprop.db").write_text("no database")
    before = at_home(bench)
    assert offered(bench, "stop", "") == []
    assert offered(bench, "list", "--group", "") == []
    assert at_home(bench) == before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts(bench: Bench, shell: str) -> None:
    done = bench.backprop("completion", shell, env={"PATH": "/nowhere"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_BACKPROP_COMPLETE={shell}_complete" in done.stdout
    if (found := shutil.which(shell)) is not None:
        checked = subprocess.run(
            [found, "-n"], input=done.stdout, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_bash(filled: Bench) -> None:
    script = f"""
    eval "$({COMMAND} completion bash)"
    COMP_WORDS=(backprop stop ab); COMP_CWORD=2
    _backprop_completion backprop
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=filled.environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["abd2", "abc1"], done.stderr


def test_it_is_in_the_readme() -> None:
    assert "backprop completion" in (ROOT / "README.md").read_text()
