"""Every verb answers in JSON, refusals too, as docs/json.schema.json says."""

import json
import subprocess
from typing import Any

import click
import pytest

from backprop.cli.commands import why
from backprop.cli.main import COMMANDS, backprop
from backprop.cli.render import answers
from backprop.scheduler import errors
from backprop.scheduler.lifecycle import State
from tests.support import json_schema
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench

WITHOUT_JSON = {"worker", "top", "export", "mcp", "completion", "help"}
"""Commands that print something else for programs, or nothing."""


class Asked:
    """Asks commands for JSON, and checks each answer against the schema."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def __call__(self, name: str, *words: str, code: int = 0, flag: str = "--json") -> Any:
        done = self.bench.backprop(*words, flag)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert done.stdout.count("\n") == 1 or name in ("run", "list", "show", "groups", "parallel")
        value = json.loads(done.stdout)
        json_schema.check(value, name)
        if flag == "--brief":
            assert len(done.stdout) <= answers.BRIEF_BYTES
        if name == "verb":
            assert value["verb"] == words[0]
            assert value["exit"] == code
            assert (value["error"] is None) == (code == 0)
        return value


@pytest.fixture
def ask(bench: Bench) -> Asked:
    bench.script("train.py", "print(1)")
    return Asked(bench)


def test_every_command_has_json() -> None:
    context = click.Context(backprop)
    lacking = set[str]()
    for name in COMMANDS:
        command = backprop.get_command(context, name)
        assert command is not None
        if not any("--json" in one.opts for one in command.params):
            lacking.add(name)
    assert lacking == WITHOUT_JSON


def test_each_verb_answers_with_the_runs_and_their_states(ask: Asked) -> None:
    a, b = (ask.bench.queue("train.py", "-n", name) for name in "ab")

    def states(told: dict[str, Any]) -> dict[str, Any]:
        return {run["name"]: run["state"] for run in told["runs"]}

    assert states(ask("verb", "hold", a)) == {"a": "held"}
    rehearsed = ask("verb", "hold", a, b, "--dry-run")
    assert (rehearsed["dry_run"], states(rehearsed)) == (True, {"a": "held", "b": "queued"})
    released = ask("verb", "release", a)
    assert states(released) == {"a": "queued"}
    assert states(ask("verb", "move", a, "--last")) == {"a": "queued"}
    assert states(ask("verb", "edit", "--state", "queued", "-m", "5")) == {"a": "queued", "b": "queued"}
    assert states(ask("verb", "stop", a)) == {"a": "stopped"}
    some = ask("verb", "stop", a, b, code=10)
    assert states(some) == {"b": "stopped"}
    assert some["refused"] == [{"id": a, "why": f"run {a} has ended already (stopped)"}]
    assert some["error"] | {"message": ""} == {
        "code": "illegal-move", "exit": 10, "message": "", "suggestion": None,
    }  # fmt: skip
    resumed = ask("verb", "resume", a)
    assert states(resumed) == {"a": "queued"}
    assert resumed["notes"] == ["no worker is running. Start one: tmux new -d 'backprop worker'"]
    (copied,) = ask("verb", "resume", b, "--as-new")["runs"]
    assert copied["new_id"] in {run["id"] for run in ask.bench.runs()}
    assert states(ask("verb", "resume", b, "--done")) == {"b": "completed"}
    assert ask("verb", "drain")["running"] == 0
    assert ask("verb", "undrain")["message"] == "starting runs again"
    assert ask("verb", "undrain")["notes"] == ["the queue is not drained"]
    assert ask("verb", "suspend", a, code=10)["error"]["message"].startswith("no worker is running")
    assert ask("verb", "unsuspend", a, code=10)["refused"][0]["id"] == a
    gone = ask("verb", "rm", a)
    assert states(gone) == {"a": None}
    assert gone["freed_bytes"] > 0
    assert states(ask("verb", "prune", "--older-than", "0s")) == {"b": None}
    assert ask("verb", "prune", "--older-than", "0s", "--compress-logs")["freed_bytes"] == 0


def test_what_is_looked_at_answers_as_the_schema_says(ask: Asked) -> None:
    many = ("run", *QUIET_LIMITS, "--group", "g", "--grid", "lr=1,2", "train.py", "--key", "k")
    assert len(ask("run", *many, "--name", "{lr}")["runs"]) == 2
    run = ask("run_brief", "run", "train.py", flag="--brief")["runs"][0]["id"]
    ask("show", "show", run)
    ask("show_brief", "show", run, flag="--brief")
    ask("list", "list")
    ask("list_brief", "list", "-n", "1", flag="--brief")
    ask("groups", "groups")
    ask("groups", "groups", "g")
    ask("parallel", "parallel", "3")
    ask("wait", "wait", run, "--timeout", "0", code=124)
    ask("wait", "wait", run, "--timeout", "0", code=124, flag="--brief")
    ask("why_brief", "why", run, flag="--brief")
    ask("report_brief", "report", flag="--brief")
    assert ask("logs", "logs", run)[0]["segment"] is None
    assert ask("plot", "plot", "g")["runs"][0]["values"] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("stop", "{run}"), 0),
        (("stop", "{run}"), 10),
        (("resume", "{run}"), 0),
        (("rm", "{run}"), 0),
        (("hold", "nope"), 3),
    ],
)
def test_a_verb_in_short_is_at_most_a_kilobyte(ask: Asked, words: tuple[str, ...], code: int) -> None:
    """Of one run, whatever it is called; of many, the first ten."""
    ask.bench.script(f"{'t' * 200}.py", "print(1)")
    run = ask.bench.queue(f"{'t' * 200}.py", "--run-id", "x" * 64, "-n", "\N{GRINNING FACE}" * 64)
    if code == 10 or words[0] == "resume":
        ask("verb", "stop", run)
    told = ask("verb", *(word.format(run=run) for word in words), code=code, flag="--brief")
    assert told["more"] == 0 if code != 3 else "more" in told


def test_a_verb_in_short_lists_the_first_runs_and_counts_the_rest(ask: Asked) -> None:
    queued = ask.bench.backprop(
        "run", "--brief", *QUIET_LIMITS, "--group", "g", "--array", "1-60", "train.py"
    )
    many = json.loads(queued.stdout)
    json_schema.check(many, "run_brief")
    assert (len(many["runs"]), many["more"]) == (50, 10)
    told = json.loads(ask.bench.backprop("stop", "g", "--brief").stdout)
    json_schema.check(told, "verb")
    assert (len(told["runs"]), told["more"]) == (10, 50)


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("show", "nope"), "no-such-run", 3),
        (("wait", "nope"), "no-such-run", 3),
        (("why", "nope"), "no-such-run", 3),
        (("show", "train"), "ambiguous-run", 4),
        (("config", "--config", "nope.json"), "bad-config", 5),
        (("run", "nope.py"), "bad-command", 6),
        (("run", "--key", "k", "train.py", "-m", "7"), "key-reused", 6),
        (("list", "--state", "odd"), "usage", 2),
        (("frobnicate",), "usage", 2),
        (("export", "train"), "usage", 2),
        (("drain", "--even-if-lost"), "usage", 2),
        (("hold", "nope"), "no-such-run", 3),
    ],
)
def test_a_refusal_is_json_too(ask: Asked, words: tuple[str, ...], code: str, exit_code: int) -> None:
    ask.bench.queue("train.py", "--key", "k")
    ask.bench.queue("train.py")
    done = ask.bench.backprop(*words, "--json")
    value = json.loads(done.stdout)
    assert done.returncode == exit_code
    error = value["error"]
    json_schema.check({"error": error}, "refusal")
    assert (error["code"], error["exit"]) == (code, exit_code)
    # The same line as ever is on stderr.
    assert done.stderr == f"backprop: {error['message']}\n"
    assert error["message"].endswith(error["suggestion"] or "")
    assert ask.bench.backprop(*words).stdout == ""


def test_json_after_the_dashes_is_the_scripts_own(ask: Asked) -> None:
    done = ask.bench.backprop("run", "nope.py", "--", "--json")
    assert (done.returncode, done.stdout) == (6, "")


def test_what_is_done_and_cannot_be_said_is_done(ask: Asked) -> None:
    run = ask.bench.queue("train.py")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [str(COMMAND), "stop", run, "--json"],
            env=ask.bench.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 26
    assert done.stderr.startswith("backprop: stop: done, do not repeat it; its output cannot be written")
    assert ask.bench.state(run) == "stopped"


def test_every_kind_of_error_has_a_name_of_its_own_in_the_schema() -> None:
    known = json_schema.definitions()["error"]["properties"]["code"]["enum"]
    classes = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.BackpropError)
    ]
    codes = [one.code for one in classes]
    assert len(set(codes)) == len(codes)
    assert set(codes) | set(answers.OF_CODE.values()) <= set(known)
    assert json_schema.definitions()["state"]["enum"] == [state.value for state in State]


@pytest.mark.parametrize("char", ["x", "é", "\U0001f600", '"'])
def test_a_brief_run_is_at_most_a_kilobyte(char: str) -> None:
    view: dict[str, Any] = dict.fromkeys(("exit_code", "last_step", "step_total"), 10**15) | dict.fromkeys(
        ("started_at", "ended_at"), "2026-11-21T20:37:37.274+00:00"
    )
    view |= {"id": "x" * 64, "state": "suspended", "fault": "out of GPU memory", "segment_count": 10**5}
    view |= dict.fromkeys(("name", "reason", "key", "group"), char * 4000) | {
        "last_loss": 1.2345678901234567e-300
    }
    for path in ("/" + char * 4000, "/" + "x" * 150):
        told = answers.brief_run(
            view | {"last_checkpoint": path}, {f"{char}{at}": 1e-300 for at in range(99)}
        )
        assert len(json.dumps(told)) <= answers.BRIEF_BYTES
        assert told["last_checkpoint"] in (None, path)
        assert told["reason"].startswith(char)
    assert answers.short("short", 5) == "short"


def test_a_brief_run_has_the_metrics_of_held_out_data_first(bench: Bench) -> None:
    lines = [f"a_rather_long_name_{number}_loss: {number}" for number in range(30)]
    bench.script("train.py", f"print({chr(10).join([*lines, 'val_bpb: 0.9979'])!r})")
    run = bench.queue("train.py")
    bench.worker("--drain").wait(timeout=60)
    for words in (("show", run), ("list",)):
        told = json.loads(bench.backprop(*words, "--brief").stdout)
        told = told[0] if isinstance(told, list) else told
        assert len(json.dumps(told)) <= answers.BRIEF_BYTES
        assert next(iter(told["metrics"].items())) == ("val_bpb", 0.9979)
        assert 1 < len(told["metrics"]) < 31
    assert len(bench.show(run)["metrics"]) == 31


@pytest.mark.parametrize("char", ["x", "\U0001f600"])
def test_why_in_short_is_at_most_a_kilobyte(char: str) -> None:
    texts = [char * 4000] * 9
    view: dict[str, Any] = dict.fromkeys(("silent_workers", "waits"), texts) | {
        "id": "x" * 64,
        "state": "suspended",
        "worker_alive": False,
        "not_before": "2026-11-21T20:37:37.274+00:00",
        "reason": char * 4000,
        "rules": [{"rule": "thermal slowdown", "text": text} for text in texts],
        "blocked_by": [{"id": "x" * 64, "reason": text} for text in texts],
    }
    told = why.brief_view(view)
    json_schema.check(told, "why_brief")
    assert len(json.dumps(told)) <= answers.BRIEF_BYTES


def test_a_run_that_was_queued_is_told_in_at_most_a_kilobyte(ask: Asked) -> None:
    name = "\N{GRINNING FACE}" * 64
    words = ("train.py", "-n", name, "--key", "k" * 128, "--group", "g" * 64, "--run-id", "x" * 64)
    told = ask("run_brief", "run", *words, flag="--brief")
    assert told["goes_on_by"]["way"]
    run = told["runs"][0]["id"]
    curve = ask("plot", "plot", run)
    assert len(json.dumps(curve)) <= answers.BRIEF_BYTES
