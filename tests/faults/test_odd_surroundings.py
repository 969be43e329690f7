"""Bytes that are not text, a directory that is gone, no home directory, numbers beyond all bounds: every command
answers in one line with its code, or does its work."""

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from backprop.cli.main import COMMANDS, backprop
from tests.support.harness import COMMAND, QUIET_LIMITS, ROOT, Bench

BAD = os.fsdecode(b"\xff\xfe")
NEEDED = {
    "run": ("train.py",), "worker": ("--drain",), "show": ("a",), "why": ("a",), "logs": ("a",), "stop": ("a",),
    "resume": ("a",), "hold": ("a",), "release": ("a",), "move": ("a", "--first"), "edit": ("a",), "rm": ("a",),
    "drill": ("train.py",), "prune": ("--keep-last", "0"), "completion": ("bash",), "import": ("old.json",),
    "export": ("-o", "out.json"), "plot": ("a",), "suspend": ("a",), "unsuspend": ("a",),
    "diff": ("a", "a"), "service": ("status",),
}  # fmt: skip
"""What a command needs to do something, where the bare command would not."""
IN_A_GONE_DIRECTORY = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"'
READ_SETTINGS = {"run", "worker", "config", "doctor", "drill", "resume", "import"}
ALWAYS = {*READ_SETTINGS, "help", "completion", "list", "show", "stop", "prune"}
SOME = [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.long) for name in COMMANDS]
"""Commands that read settings, and some that do not; the others behind the marker."""
REFUSE_A_GONE_DIRECTORY = {"run", "drill", "worker", "config", "import", "resume", "export"}
"""Commands that need the directory: for its configuration, or to find a path in it."""


def command(name: str) -> click.Command:
    found = backprop.get_command(click.Context(backprop), name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home with a held run, to be copied."""
    first = Bench(tmp_path_factory.mktemp("held"))
    first.script("train.py", "print(1)")
    first.queue("--run-id", "a", "--hold", "train.py")
    return first.home


@pytest.fixture
def held(bench: Bench, home: Path) -> Bench:
    """Make a bench with a held run."""
    bench.script("train.py", "print(1)")
    bench.script("old.json", "{}")
    shutil.copytree(home, bench.home)
    return bench


def assert_one_line(done: subprocess.CompletedProcess[str], code: int | None = None) -> None:
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode != 1, done
    if done.returncode in range(2, 12):
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("backprop: ")
    if code is not None:
        assert done.returncode == code, done


def text_parameters() -> list[tuple[str, tuple[str, ...]]]:
    """Every place of every command where any text may stand."""
    places: list[tuple[str, tuple[str, ...]]] = []
    for name in COMMANDS:
        for param in command(name).params:
            if isinstance(param, click.Argument):
                places.append((name, (BAD,)))
            elif not param.is_flag and param.name != "setting_gpu_probe":  # pyright: ignore[reportAttributeAccessIssue]
                # Commands that read no configuration take --config all the same, and would do their work.
                needed = NEEDED.get(name, ()) if param.name != "config" or name in READ_SETTINGS else ()
                places.append((name, (*needed, param.opts[-1], BAD)))
    return places


@pytest.mark.parametrize("name", COMMANDS)
def test_an_argument_that_is_not_utf8_is_one_line(held: Bench, name: str) -> None:
    places = dict.fromkeys(words for command_name, words in text_parameters() if command_name == name)
    for words in places:
        if words[:1] == ("--env",):
            continue  # a value of any bytes reaches the script as it is
        assert_one_line(held.backprop(name, *words, env={"EDITOR": "true"}))
    assert_one_line(held.backprop(name, "--", BAD, env={"EDITOR": "true"}))
    assert held.state("a") == "held"
    assert [run["id"] for run in held.runs()] == ["a"]


def test_a_directory_or_checkpoint_whose_name_is_not_utf8_is_refused(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    folder = bench.project / BAD
    folder.mkdir()
    shutil.copy(bench.project / "train.py", folder)
    (bench.project / f"one{BAD}").write_text("1")
    assert_one_line(bench.backprop("run", "train.py", cwd=folder), 6)
    assert_one_line(bench.backprop("drill", "train.py", cwd=folder), 6)
    assert_one_line(bench.backprop("run", "-r", f"one{BAD}", "train.py"), 6)
    assert not (bench.home / "runs").exists() or not list((bench.home / "runs").glob("[!.]*"))


@pytest.mark.parametrize("name", SOME)
def test_a_directory_that_is_gone(held: Bench, name: str) -> None:
    words = ("sh", "-c", IN_A_GONE_DIRECTORY, str(COMMAND), name, *NEEDED.get(name, ()))
    done = held.backprop(command=words, env={"EDITOR": "true"})
    assert_one_line(done)
    if name in REFUSE_A_GONE_DIRECTORY - {"import"}:
        assert done.returncode == 6, done
        assert "the current directory is gone" in done.stderr
        assert held.state("a") == "held"


@pytest.mark.parametrize("name", SOME)
def test_no_home_directory_and_a_user_whom_the_machine_does_not_know(held: Bench, name: str) -> None:
    unknown = ("unshare", "--map-user=54321")
    if shutil.which("unshare") is None or subprocess.run([*unknown, "true"], capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    words = ("env", "-u", "HOME", "-u", "BACKPROP_HOME", *unknown, str(COMMAND), name, *NEEDED.get(name, ()))
    done = held.backprop(command=words)
    assert_one_line(done)
    if name not in ("completion", "help", "import", "mcp", "prune"):
        assert done.returncode in (7, 24), done
        assert "HOME is not set" in done.stderr + done.stdout
    words = ("env", "-u", "HOME", *unknown, str(COMMAND), name, *NEEDED.get(name, ()))
    if name not in ("drill", "worker"):
        assert_one_line(held.backprop(command=words, env={"EDITOR": "true"}))


NUMBERS = (click.types.IntParamType, click.types.FloatParamType)


def numbers() -> list[tuple[str, str]]:
    """Every option that takes a number."""
    return [
        (name, param.opts[-1])
        for name in COMMANDS
        for param in command(name).params
        if isinstance(param, click.Option) and isinstance(param.type, NUMBERS)
    ]


@pytest.mark.parametrize(("name", "option"), numbers(), ids=lambda value: str(value))
def test_a_number_beyond_all_bounds_is_refused(held: Bench, name: str, option: str) -> None:
    for number in ("9223372036854775808", "-9223372036854775809", "nan", "inf", "1e400"):
        done = held.backprop(name, *NEEDED.get(name, ()), option, number)
        assert_one_line(done)
        assert done.returncode in (2, 5, 6), (number, done)
    assert [run["id"] for run in held.runs()] == ["a"]


def test_the_current_directory_is_asked_for_in_one_place() -> None:
    """Elsewhere it would raise where the directory is gone."""
    asking = [
        str(path.relative_to(ROOT))
        for folder in ("cli", "scheduler", "worker")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if any(text in path.read_text() for text in ("Path.cwd()", "getcwd(", "Path.home()\n"))
    ]
    assert asking == [str(Path("scheduler/config/files.py"))]


@pytest.mark.parametrize(
    "locale",
    [
        pytest.param({"LANG": "C"}, marks=pytest.mark.long),
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}, marks=pytest.mark.long),
        {"LC_ALL": "de_DE", "PYTHONIOENCODING": "iso2022_jp"},  # 7 bits, and no umlauts
        pytest.param({"LC_ALL": "ja_JP.UTF-8"}, marks=pytest.mark.long),
    ],
    ids=lambda locale: "-".join(locale.values()),
)
def test_names_that_the_terminal_cannot_show_are_printed_all_the_same(
    bench: Bench, locale: dict[str, str]
) -> None:
    """By commands and by the worker, whose own lines are not ASCII either."""
    bench.script("größe 日本.py", "print('größe 日本 ✓', flush=True)")
    run = bench.queue("größe 日本.py", "--", "--größe", "日本")
    words = ("größe 日本.py", "--dry-run")
    bench.environment |= locale
    second = bench.backprop("run", *QUIET_LIMITS, "größe 日本.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    for done in (
        second,
        bench.backprop("run", *QUIET_LIMITS, *words),
        *(bench.backprop(*words) for words in (("list",), ("show", run), ("logs", run), ("list", "--json"))),
        *(bench.backprop(*words) for words in (("status",), ("why", run), ("show", run, "--json"))),
    ):
        assert done.returncode == 0, done
        assert "Traceback" not in done.stdout + done.stderr
    assert "Traceback" not in bench.output()
    assert bench.state(run) == "completed"
