"""What a person types who comes from another tool, or mistypes, is answered with what it is called here."""

import itertools
from collections.abc import Iterator

import click
import pytest

from backprop.cli.help import foreign_words
from backprop.cli.main import COMMANDS
from backprop.cli.options.numbers import Minutes
from tests.support.harness import Bench
from tests.support.refusals import refused
from tests.support.terminal import Terminal


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("kill", "backprop stop RUN"),
        ("cancel", "backprop stop RUN"),
        ("delete", "backprop rm RUN"),
        ("ps", "backprop list"),
        ("queue", "backprop list"),
        ("add", "backprop run SCRIPT"),
        ("submit", "backprop run SCRIPT"),
        ("pause", "backprop hold RUN"),
        ("lits", "backprop list"),
        ("cancle", "backprop stop RUN"),
    ],
)
def test_a_foreign_or_mistyped_command(word: str, meant: str) -> None:
    said = foreign_words.for_command(word, COMMANDS)
    assert said is not None
    assert said.startswith(f"No command '{word}'. ")
    assert meant in said


def commands_named(text: str) -> Iterator[str]:
    words = text.split()
    return (word for before, word in itertools.pairwise(words) if before == "backprop")


def test_every_answer_names_commands_that_exist_and_shadows_none() -> None:
    for word, said in foreign_words.COMMANDS.items():
        assert word not in COMMANDS, f"{word} is a command now; take it out of the table"
        assert list(commands_named(said)), word
        for name in commands_named(said):
            assert name.strip(";") in COMMANDS, (word, name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kill", "3"), "No command 'kill'. In Backprop: backprop stop RUN; see: backprop --help"),
        (("help", "kill"), "In Backprop: backprop stop RUN"),
        (("run", "--gpu", "1", "train.py"), "No such option: --gpu. In Backprop: --gpus N"),
        (("run", "--time=5", "train.py"), "No such option: --time. In Backprop: -m MINUTES"),
        (("run", "train.py", "--gres", "1"), "--gpus N. The script's own arguments come after --"),
        (("run", "--prioritty", "1", "train.py"), "Did you mean: --priority"),
        (("list", "--gpu"), "No such option: --gpu; see"),
        (("run", "train.py", "-m", "10x"), "10x is no time; use minutes, such as 10, or 90s, 10m, 1h30m"),
        (("edit", "a", "b"), "an editor takes one run"),
    ],
)
def test_it_is_said_in_one_line(bench: Bench, words: tuple[str, ...], said: str) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py")
    assert said in refused(bench, 2, *words)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("10m", 10),
        ("10min", 10),
        ("1h", 60),
        ("90s", 1.5),
        ("1h30m", 90),
        ("1 d", 1440),
    ],
)
def test_minutes_and_spans(text: str, minutes: float) -> None:
    assert Minutes().convert(text, None, None) == minutes


@pytest.mark.parametrize("text", ["", "m", "1x", "1h30", "ten", "h1", "1mm"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Minutes().convert(text, None, None)


def test_help_short_long_and_of_all(bench: Bench) -> None:
    narrow = {"COLUMNS": "80"}
    top = bench.backprop("--help", env=narrow).stdout
    assert len(top.splitlines()) <= 28
    assert top.index("Examples:") < top.index("Commands:")
    assert all(f" {name}" in top for name in COMMANDS)
    short = bench.backprop("run", "-h", env=narrow).stdout
    assert short.count("\n  -") == 12
    full = bench.backprop("run", "--help", env=narrow).stdout
    assert [
        full.index(f"{title}:")
        for title in ("Time", "GPU and machine", "Save and resume", "Many runs", "Order")
    ]
    assert len(short.splitlines()) < len(full.splitlines()) / 3
    assert (
        bench.backprop("help", "why", env=narrow).stdout == bench.backprop("why", "--help", env=narrow).stdout
    )
    every = bench.backprop("help", env=narrow).stdout
    assert all(f"  {name} " in every for name in COMMANDS)
    assert bench.backprop("-V").stdout == bench.backprop("--version").stdout


def test_many_runs_are_changed_without_an_editor(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    ids = [bench.queue("train.py", "-n", name) for name in ("a", "b")]
    done = bench.backprop("edit", "a", "b", "-m", "1h", "--priority", "5", "--env", "A=1")
    assert (done.returncode, done.stdout.count("changed ")) == (0, 2), done.stderr
    for run in ids:
        shown = bench.backprop("show", run).stdout
        assert "timebox      60 min" in shown
        assert "priority     5" in shown
    assert "expected minutes" in refused(bench, 6, "edit", "a", "b", "-m", "0")
    assert "--rename takes one run" in refused(bench, 2, "edit", "a", "b", "--rename", "c")
    assert bench.backprop("edit", "a", "--rename", "c").returncode == 0
    bench.backprop("stop", "b")
    assert "only a queued or held run can be edited" in refused(bench, 10, "edit", "b", "-m", "3")


def test_a_copy_is_a_new_run_with_changes(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    old = bench.queue("train.py", "-n", "base", "--env", "A=1", "--", "--lr", "3")
    bench.backprop("stop", old)
    done = bench.backprop("resume", old, "--as-new", "-m", "3", "--retries", "2")
    assert done.returncode == 0, done.stderr
    new = done.stdout.split()[-1]
    assert bench.show(old)["state"] == "stopped"
    shown = bench.show(new)
    assert (shown["state"], shown["name"], shown["command"]) == ("queued", "base", bench.show(old)["command"])
    assert "timebox      3 min" in bench.backprop("show", new).stdout


def test_the_live_screen_gives_the_terminal_back(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "-n", "実験 1")
    for words in (("top",), ("status", "--watch"), ("list", "--watch")):
        with Terminal(bench, 100, *words) as terminal:
            terminal.read_until("実験 1")
            terminal.press("\x03")
            for restored in ("\x1b[?1049l", "\x1b[?25h"):
                terminal.read_until(restored)
            seen = terminal.shown(raw=True)
            assert "\x1b[?1049h" in seen
            assert seen.index("\x1b[?25h") > seen.index("\x1b[?25l")
            assert terminal.process.wait(10) == 0
    once = bench.backprop()
    assert (once.returncode, once.stderr) == (0, "")
    assert "実験 1" in once.stdout
    assert "\x1b" not in once.stdout
    assert bench.backprop("top").stdout.splitlines()[1:] == once.stdout.splitlines()[1:]
    with Terminal(bench, 100, "top", env={"TERM": "dumb"}) as terminal:
        assert "\x1b" not in terminal.read_all(raw=True)
