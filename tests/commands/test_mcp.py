"""`backprop mcp`: agents use the same commands over stdin and stdout, and nothing ends the server but its client."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import pytest

from backprop.cli.main import run_command
from backprop.cli.render import answers
from tests.support import json_schema
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, processes_with, wait_until
from tests.support.mcp_wire import McpWire

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("mcp") is None, reason="mcp, the extra, is not installed"
)

TOOLS = {
    "submit", "preview", "wait", "show", "list", "logs", "metrics", "compare", "stop", "resume", "why", "report",
}  # fmt: skip
SCHEMAS = {
    "submit": "run_brief", "preview": "run_brief", "wait": "wait", "show": "show_brief", "stop": "verb",
    "resume": "verb", "why": "why_brief", "report": "report_brief", "metrics": "plot", "compare": "plot",
}  # fmt: skip
"""Entries of docs/json.schema.json; a list comes as `runs`."""
LISTS = {"list": "list_brief", "logs": "logs"}
TRAINS = """
import json, sys
for step in range(30):
    print(json.dumps({"step": step, "loss": float(sys.argv[1]) / (step + 1)}))
"""


class Client:
    """The SDK's own client, talking to the installed command."""

    def __init__(self, session: Any) -> None:
        self.session = session

    async def __call__(self, tool: str, **arguments: Any) -> Any:
        """Return the answer of a tool that does not refuse."""
        value, refused = await self.ask(tool, **arguments)
        assert not refused, value
        of_two = tool == "compare" and "metric" not in arguments
        schema = "diff_brief" if of_two else (SCHEMAS | LISTS)[tool]
        json_schema.check(value["runs"] if tool in LISTS else value, schema)
        return value

    async def refusal(self, tool: str, **arguments: Any) -> Any:
        """Return the error of a tool that refuses."""
        value, refused = await self.ask(tool, **arguments)
        assert refused, value
        json_schema.check({"error": value["error"]}, "refusal")
        return value["error"]

    async def ask(self, tool: str, **arguments: Any) -> tuple[Any, bool]:
        result = await self.session.call_tool(tool, arguments)
        (text,) = result.content
        assert json.loads(text.text) == result.structured_content
        if tool not in LISTS:
            assert len(text.text) <= answers.BRIEF_BYTES, (tool, text.text)
        return result.structured_content, result.is_error


def talk(bench: Bench, scene: Callable[[Client], Awaitable[None]], env: dict[str, str] | None = None) -> None:
    """Start a server by the SDK's client, and play a scene."""
    import anyio
    from mcp import Client as ClientOfSdk
    from mcp import StdioServerParameters, stdio_client

    async def play(errors: Any) -> None:
        server = StdioServerParameters(
            command=str(COMMAND), args=["mcp"], env=bench.environment | (env or {}), cwd=bench.project
        )
        async with ClientOfSdk(stdio_client(server, errors)) as session:
            await scene(Client(session))

    with (bench.project.parent / "server.err").open("w+") as errors:
        anyio.run(play, errors)
        errors.seek(0)
        assert errors.read() == ""
    wait_until(lambda: not servers(bench))


def servers(bench: Bench) -> list[int]:
    """Return the processes of servers, and of commands that they have started."""
    found = []
    for pid in processes_with(f"BACKPROP_HOME={bench.home}"):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mcp" in words or any(b"run_command_line" in word for word in words):
            found.append(pid)
    return found


@needs_sdk
def test_an_agent_works_by_tools_alone(bench: Bench) -> None:
    bench.script("train.py", TRAINS)
    worker = bench.worker()
    options = [*QUIET_LIMITS]

    async def scene(ask: Client) -> None:
        listed = (await ask.session.list_tools()).tools
        assert {tool.name for tool in listed} == TOOLS
        assert all(tool.description and tool.input_schema["type"] == "object" for tool in listed)
        assert {tool.name for tool in listed if not tool.annotations.read_only_hint} == {
            "submit",
            "stop",
            "resume",
        }
        wanted = {
            "command": ["train.py", "8"],
            "key": "exp-1",
            "name": "exp-1",
            "options": options,
            "group": "g",
        }
        assert not (await ask("preview", **wanted))["queued"]
        assert bench.runs() == []
        first = await ask("submit", **wanted, minutes=0.5, env={"SEED": "1"})
        again = await ask("submit", **wanted, minutes=0.5, env={"SEED": "1"})
        run = first["runs"][0]["id"]
        assert (again["existing"], again["runs"][0]["id"]) == (True, run)
        await ask("submit", command=["train.py", "4"], key="exp-2", name="exp-2", options=options, group="g")
        told = await ask("wait", runs=["g"], seconds=60)
        assert (told["ended"], told["exit"], told["runs"]) == (True, 0, 2)
        shown = await ask("show", run="exp-1")
        assert shown == json.loads(bench.backprop("show", "exp-1", "--brief").stdout)
        assert shown["state"] == "completed"
        assert {one["name"] for one in (await ask("list", state="completed", limit=2))["runs"]} == {
            "exp-1",
            "exp-2",
        }
        assert (await ask("list", name="exp-2", group="g", since="1h", sort="loss"))["runs"][0][
            "name"
        ] == "exp-2"
        (tail,) = (await ask("logs", run="exp-1", lines=2))["runs"]
        assert [json.loads(line)["step"] for line in tail["text"].splitlines()] == [28, 29]
        curve = (await ask("metrics", run="exp-1", points=5))["runs"][0]
        assert (curve["last"], curve["points"], curve["known"]) == (8 / 30, [[29, 0.266667]], ["loss"])
        curves = (await ask("compare", runs=["exp-1", "exp-2"], metric="loss"))["runs"]
        both = {one["name"]: one["least"] for one in curves}
        assert both["exp-2"] == both["exp-1"] / 2
        told = await ask("compare", runs=["exp-1", "exp-2"])
        assert told == json.loads(bench.backprop("diff", "exp-1", "exp-2", "--brief").stdout)
        (words,) = told["arguments"]["differs"]
        assert (words["a"], words["b"]) == ("train.py 8", "train.py 4")
        assert (await ask("report", since="1h", group="g"))["counts"] == {"completed": 2}

    talk(bench, scene)
    assert bench.show("exp-1")["command"].endswith("train.py 8")
    assert bench.end_worker(worker) == 0


@needs_sdk
def test_what_goes_on_is_stopped_resumed_and_explained_while_another_call_waits(bench: Bench) -> None:
    import anyio

    bench.script("train.py", "import time; time.sleep(600)")
    run = bench.queue("train.py")

    async def scene(ask: Client) -> None:
        assert (await ask("why", run=run))["worker_alive"] is False
        told = await ask("wait", runs=[run], seconds=1)
        assert (told["exit"], told["ended"], told["counts"]["queued"]) == (124, False, 1)
        ended: list[Any] = []

        async def wait() -> None:
            ended.append(await ask("wait", runs=[run]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            with anyio.fail_after(30):
                while len(servers(bench)) < 2:  # the wait is a process of its own
                    await anyio.sleep(0.02)
            assert (await ask("stop", runs=[run], preview=True))["dry_run"]
            assert bench.state(run) == "queued"
            assert (await ask("stop", runs=[run]))["runs"][0]["state"] == "stopped"
        assert (ended[0]["exit"], ended[0]["decided_by"]["id"]) == (22, run)
        assert ended[0]["waited_s"] < 40
        assert (await ask("resume", runs=[run], preview=True))["dry_run"]
        assert (await ask("resume", runs=[run], minutes=3))["runs"][0]["state"] == "queued"
        (copied,) = (await ask("resume", runs=[run], as_new=True))["runs"]
        assert copied["new_id"] != run
        assert (await ask("wait", runs=[run, copied["new_id"]], first=True, seconds=0))["exit"] == 124

    talk(bench, scene)


@needs_sdk
def test_refusals_have_the_codes_of_the_commands_and_end_nothing(bench: Bench) -> None:
    from mcp import MCPError

    bench.script("train.py", "print(1)")
    bench.script("click.py", "raise SystemExit('what lies in the project was imported')")

    async def scene(ask: Client) -> None:
        async def code(tool: str, **arguments: Any) -> tuple[str, int]:
            error = await ask.refusal(tool, **arguments)
            assert error["message"]
            return error["code"], error["exit"]

        assert await code("show", run="nope") == ("no-such-run", 3)
        assert (await ask("list"))["runs"] == []
        run = ["train.py"]
        await ask("submit", command=run, key="k")
        await ask("submit", command=run)
        assert await code("show", run="train") == ("ambiguous-run", 4)
        assert await code("submit", command=["nope.py"]) == ("bad-command", 6)
        assert await code("submit", command=run, key="k", minutes=7) == ("key-reused", 6)
        assert await code("submit", command=run, cwd="/nowhere") == ("bad-command", 6)
        assert await code("submit", command=run, options=["--", "x"]) == ("bad-command", 6)
        assert await code("submit", command=run, options=["--follow"]) == ("usage", 2)
        assert await code("submit", command=run, options=["--frob"]) == ("usage", 2)
        assert await code("submit", command=run, options=["--help"]) == ("no-answer", 1)
        assert await code("submit", command=["a\0b"]) == ("bad-command", 6)
        gone = (await ask("submit", command=run))["runs"][0]["id"]
        await ask("stop", runs=[gone])
        assert await code("stop", runs=[gone]) == ("illegal-move", 10)
        assert await code("list", state="odd") == ("usage", 2)
        assert await code("list", limit=0) == ("usage", 2)
        assert await code("wait", runs=[]) == ("usage", 2)
        assert await code("wait", runs=["train"], seconds=999) == ("usage", 2)
        assert await code("show", run="--help") == ("no-such-run", 3)
        assert "frob" in (await ask.refusal("show", run="train", frob=1))["message"]
        with pytest.raises(MCPError, match="there are: submit"):
            await ask.session.call_tool("rm", {"run": "train"})
        assert len((await ask("list"))["runs"]) == 3

    talk(bench, scene)


@needs_sdk
def test_a_home_that_is_refused_is_said_by_each_tool(bench: Bench, tmp_path: Path) -> None:
    async def scene(ask: Client) -> None:
        for tool, arguments in (("list", {}), ("submit", {"command": ["true"]}), ("wait", {"runs": ["x"]})):
            assert (await ask.refusal(tool, **arguments))["code"] == "home-refused"

    tmp_path.chmod(0o777)
    talk(bench, scene, env={"BACKPROP_HOME": str(tmp_path)})


@needs_sdk
@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("eof", 0),
        (signal.SIGINT, 130),
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_its_end_is_at_once_and_leaves_no_process(bench: Bench, how: Any, code: int) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    wire = McpWire(bench)
    try:
        wire.send("tools/call", {"name": "wait", "arguments": {"runs": [run], "seconds": 240}})
        wait_until(lambda: list(bench.home.glob("locks/wait*")) or len(servers(bench)) > 1)
        began_s = time.monotonic()
        if how == "eof":
            assert wire.close() == code
        else:
            wire.process.send_signal(how)
            assert wire.process.wait(timeout=20) == code
        assert time.monotonic() - began_s < 5
        wait_until(lambda: not servers(bench), timeout_s=5)
    finally:
        wire.drop()


@needs_sdk
def test_a_call_that_its_client_takes_back_is_ended(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    wire = McpWire(bench)
    try:
        number = wire.send("tools/call", {"name": "wait", "arguments": {"runs": [run]}})
        wait_until(lambda: len(servers(bench)) > 1)
        wire.cancel(number)
        wait_until(lambda: len(servers(bench)) == 1)
        assert wire.call("show", run=run)["state"] == "queued"
        assert wire.close() == 0
    finally:
        wire.drop()


@needs_sdk
def test_a_client_that_reads_nothing_keeps_no_server(bench: Bench) -> None:
    wire = McpWire(bench)
    try:
        for _ in range(12):  # more than a pipe holds
            wire.send("tools/list", {})
        wait_until(lambda: wire.unread() > 60_000, saw=wire.unread)  # its pipe is full: it cannot go on
        assert wire.process.stdin is not None
        wire.process.stdin.close()
        assert wire.process.wait(timeout=20) == 0
    finally:
        wire.drop()


@needs_sdk
def test_a_command_that_does_not_answer_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    from backprop.cli.mcp_server.asking import ask

    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    monkeypatch.setenv("BACKPROP_HOME", str(bench.home))
    answer = anyio.run(ask, ["wait", run, "--json"], None, 1.0)
    assert answer.refused
    assert answer.value["error"]["code"] == "no-answer"
    assert answer.value["error"]["suggestion"] == "ask again, with the same key"
    json_schema.check(answer.value, "refusal")
    assert not servers(bench)


@needs_sdk
def test_it_has_no_socket_with_an_address(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=socket,bind,connect,listen", "-o")
    if (
        shutil.which("strace") is None
        or subprocess.run([*strace, str(trace), "true"], check=False).returncode
    ):
        pytest.skip("strace is missing or may not trace here")
    bench.script("train.py", "print(1)")
    wire = McpWire(bench, (*strace, str(trace)))
    try:
        run = wire.call("submit", command=["train.py"], key="k")["runs"][0]["id"]
        assert wire.call("wait", runs=[run], seconds=0)["exit"] == 124
        assert wire.call("show", run=run)["id"] == run
        assert wire.call("stop", runs=[run])["exit"] == 0
        assert wire.close() == 0
    finally:
        wire.drop()
    calls = trace.read_text()
    assert "AF_INET" not in calls
    assert not re.search(r"bind\(\d+, \{sa_family=AF_UNIX, sun_path=", calls)
    assert "listen(" not in calls


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> NoReturn:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert run_command(["mcp"]) == 6
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err == "backprop: backprop mcp needs mcp 2; install it: pip install 'backprop-scheduler[mcp]'\n"
    )


def test_help_needs_no_extra() -> None:
    code = "import sys; sys.modules.update(mcp=None, anyio=None); from backprop.cli.main import run_command; "
    done = subprocess.run(
        [sys.executable, "-c", code + "run_command(['mcp', '--help'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mcpServers" in done.stdout
