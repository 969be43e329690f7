"""What all commands refuse, each in one line: command lines, unknown runs, homes that are not safe."""

import re
import sqlite3

import pytest

from tests.support.harness import Bench
from tests.support.refusals import refused


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run",), 2, "SCRIPT is missing"),
        (("run", "no.py"), 6, "no.py does not exist in"),
        (("run", "folder.py"), 6, "folder.py is a directory in"),
        (("run", "no/such/program"), 6, "no/such/program is not a program in"),
        (("run", "no-such-program"), 6, "not a program on PATH"),
        (("run", "plain.txt"), 6, "chmod +x ./plain.txt"),
        (("run", "train.py", "surplus"), 2, "backprop run train.py -- surplus"),
        (("run", "train.py", "-m", "abc"), 2, "abc is no time; use minutes"),
        (("run", "train.py", "-m", "0"), 5, "--max-run-minutes"),
        (("run", "train.py", "-m", "-1"), 5, "--max-run-minutes"),
        (("run", "train.py", "-m", "nan"), 5, "--max-run-minutes"),
        (("run", "train.py", "-m", "inf"), 5, "--max-run-minutes"),
        (("run", "train.py", "-g", "lots"), 5, "--gpu-memory-limit"),
        (("run", "train.py", "-p", "0"), 5, "--max-parallel"),
        (("run", "train.py", "--retries", "1.5"), 2, "not a valid integer"),
        (("run", "train.py", "--stop-signal", "KILL"), 5, "--stop-signal"),
        (("run", "train.py", "--resume-arg", "--load"), 5, "{checkpoint}"),
        (("run", "train.py", "-f", "jax"), 2, "pytorch"),
        (("run", "train.py", "-r", "no.ckpt"), 6, "--resume-from no.ckpt does not exist"),
        (("run", "train.py", "--env", "NOVALUE"), 6, "--env NOVALUE is not KEY=VALUE"),
        (("run", "train.py", "--env", "=x"), 6, "is not KEY=VALUE"),
        (("run", "train.py", "--python", "/no/such/python"), 6, "--python /no/such/python"),
        (("run", "train.py", "--run-id", "../x"), 6, "--run-id ../x is refused"),
        (("run", "train.py", "-n", "a/b"), 6, "--name a/b is refused"),
        (("run", "train.py", "-n", ""), 6, "--name"),
        (("run", "train.py", "-n", "x" * 65), 6, "1 to 64"),
        (("run", "train.py", "--config", "no.json"), 5, "no.json: does not exist"),
        (("run", "train.py", "--config", "broken.json"), 5, "broken.json:1:"),
        (("run", "train.py", "--config", "unknown.json"), 5, "did you mean maxRunMinutes?"),
        (("run", "train.py", "--config", "wrong.json"), 5, "maxParallel: expected a whole number"),
        (("run", "train.py", "--config", "commands.json"), 5, "may not be set by a project file"),
        (("run", "train.py", "--nonsense"), 2, "--nonsense"),
        (("frobnicate",), 2, "No such command 'frobnicate'. The commands are: run, worker, list"),
        (("show", "nope"), 3, "nothing has been queued"),
        (("import", "no.json"), 5, "no.json does not exist"),
    ],
)
def test_a_bad_command_line_is_one_line_and_makes_nothing(
    bench: Bench, words: tuple[str, ...], code: int, said: str
) -> None:
    bench.script("train.py", "print(1)")
    bench.script("plain.txt", "text")
    (bench.project / "folder.py").mkdir()
    bench.script("broken.json", "{")
    bench.script("unknown.json", '{"maxRunMinuts": 3}')
    bench.script("wrong.json", '{"maxParallel": "two"}')
    bench.script("commands.json", '{"python": "/bin/sh"}')
    assert said in refused(bench, code, *words)
    assert not bench.home.exists()


def test_a_config_that_cannot_be_read(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    (bench.project / "backprop.config.json").mkdir()
    assert "backprop.config.json: not a regular file" in refused(bench, 5, "run", "train.py")
    (bench.project / "backprop.config.json").rmdir()
    bench.script("backprop.config.json", "{}").chmod(0o666)
    assert "chmod o-w" in refused(bench, 5, "run", "train.py")


@pytest.mark.parametrize("command", ["show", "status", "logs", "stop", "resume"])
def test_an_unknown_run_is_one_line(queued: Bench, command: str) -> None:
    assert "no run has the id or name nope; see: backprop list" in refused(queued, 3, command, "nope")


def test_a_name_that_several_runs_share(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    ids = {bench.queue("train.py", "-n", "base") for _ in range(3)}
    for command in ("show", "stop", "logs", "resume"):
        said = refused(bench, 4, command, "base")
        assert "3 runs are named base" in said
        assert set(re.findall(r"[0-9a-f]{8}", said)) == ids, "it says which it could mean"
    assert bench.show(ids.pop())["name"] == "base"


def test_the_beginning_of_an_id(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    for run_id in ("abc1", "abd2", "zz"):
        bench.queue("train.py", "--run-id", run_id, "-n", f"n-{run_id}")
    assert bench.show("abc")["id"] == "abc1"
    assert bench.show("z")["id"] == "zz"
    said = refused(bench, 4, "show", "ab")
    assert "2 ids begin with ab: " in said
    assert "abc1" in said
    assert "abd2" in said
    bench.queue("train.py", "--run-id", "zzz", "-n", "abc1")
    assert bench.show("abc1")["id"] == "abc1", "an id beats another run's name"
    for pattern in ("%", "_", "a%", "*"):
        refused(bench, 3, "show", pattern)


def test_nothing_is_stopped_when_one_of_the_names_is_wrong(queued: Bench) -> None:
    refused(queued, 3, "stop", "abc1", "nope")
    assert queued.show("abc1")["state"] == "queued"


def test_what_has_ended_cannot_be_stopped_nor_what_waits_be_resumed(queued: Bench) -> None:
    assert "only a run that has ended or is held" in refused(queued, 10, "resume", "abc1")
    assert queued.backprop("stop", "abc1").returncode == 0
    assert "has ended already (stopped)" in refused(queued, 10, "stop", "abc1")


def test_a_database_of_a_newer_backprop(queued: Bench) -> None:
    connection = sqlite3.connect(queued.home / "backprop.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    for words in (("list",), ("run", "train.py"), ("worker",), ("show", "abc1")):
        assert "schema 999" in refused(queued, 8, *words)


def test_a_home_that_is_a_link(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    real = bench.home.with_name("real")
    real.mkdir(mode=0o700)
    bench.home.symlink_to(real)
    for words in (("run", "train.py"), ("list",), ("worker",)):
        assert f"is a symbolic link; set BACKPROP_HOME to that path itself: {real}" in refused(
            bench, 7, *words
        )
    assert list(real.iterdir()) == []


def test_a_home_that_anybody_may_write(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.home.mkdir()
    bench.home.chmod(0o777)
    for words in (("run", "train.py"), ("list",), ("worker",), ("status",)):
        assert f"chmod 700 {bench.home}" in refused(bench, 7, *words)
    assert "not an absolute path" in refused(bench, 7, "list", env={"BACKPROP_HOME": "here"})


def test_the_version_and_the_bare_command(bench: Bench) -> None:
    assert bench.backprop("--version").stdout.startswith("backprop, version ")
    bare = bench.backprop()
    assert (bare.returncode, bare.stderr) == (0, "")
    assert "Examples:" in bare.stdout
