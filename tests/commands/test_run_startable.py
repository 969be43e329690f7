"""Which scripts and programs `backprop run` takes: what can be started, what is refused, and what became impossible."""

import json
import venv

import pytest

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench
from tests.support.refusals import refused
from tests.support.telling_script import TELL, run_to_end, told


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


def test_a_relative_script_is_found_where_it_was_queued(bench: Bench) -> None:
    bench.script("deep/train.py", TELL)
    run = bench.backprop("run", "-q", *QUIET_LIMITS, "train.py", cwd=bench.project / "deep").stdout.strip()
    bench.worker("--drain").wait(timeout=60)
    assert told(bench, run)["cwd"] == str(bench.project / "deep")
    assert told(bench, run)["argv"] == ["train.py"]


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
