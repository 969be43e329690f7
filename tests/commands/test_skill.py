"""What the skill and the AGENTS.md snippet teach works: every command in them, in a real home with a worker."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from backprop.cli.mcp_server.tools import TOOLS
from tests.support.harness import ROOT, Bench

SKILL = (ROOT / "skills" / "backprop" / "SKILL.md").read_text()
SCRIPTS = (ROOT / "docs" / "scripts.md").read_text()
MOST_LINES = 60
TRAINS = """
for step in range(3):
    print(f"step {step} loss: {1 / (step + 1)}")
print("val_bpb: 0.98")
"""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def at_work(bench: Bench) -> Iterator[Bench]:
    """A project with a training, a run to compare with, a run to stop, and a worker."""
    bench.script("train.py", TRAINS)
    bench.script("long.py", "import time; time.sleep(600)")
    # So that a small or busy machine starts what is queued without any option.
    settings = {"minFreeRamGB": 0, "maxCpuLoad": 1000, "gpu": {"probe": "none"}}
    bench.script("backprop.config.json", json.dumps(settings))
    worker = bench.worker("-p", "4")
    for name in ("exp-040", "OTHER"):
        run = bench.queue("train.py", "-n", name)
        bench.wait_for(run, "completed")
    bench.wait_for(bench.queue("long.py", "-n", "exp-043"), "running")
    yield bench
    bench.end_worker(worker)


def run(bench: Bench, line: str) -> list[dict[str, object]]:
    """Run a line in a shell; return the JSON that it prints, an object or list per line."""
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False,
        env=bench.environment, cwd=bench.project, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    told = [json.loads(one) for one in done.stdout.splitlines()]
    assert told, line
    assert all(len(one) <= 1024 for one in done.stdout.splitlines() if " logs " not in line), line
    return told


def test_every_command_of_the_skill(at_work: Bench) -> None:
    six, loop = blocks(SKILL, "sh")
    commands = six.splitlines()
    assert len(commands) == 6
    told = [run(at_work, line)[-1] for line in commands]
    assert told[1]["exit"] == 0
    assert told[2]["state"] == "completed"
    assert "val_bpb: 0.98" in told[3][0]["text"]
    assert [one["last"] for one in told[4]["runs"]] == [0.98, 0.98]
    assert told[5]["verb"] == "stop"
    assert run(at_work, loop)[-1]["state"] == "completed"
    spans = [
        span
        for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", SKILL, flags=re.S))
        if " " in span
    ]
    spans = [span for span in spans if span.startswith(("backprop ", "--grid"))]
    assert len(spans) == 4
    for span in spans:
        if span.startswith("--grid"):
            run(at_work, f"backprop run -m 1 {span} --brief train.py -- --lr {{lr}}")
        elif span == "backprop worker":
            assert at_work.backprop(*span.split()[1:], "--help").returncode == 0
        else:
            run(at_work, span if "--brief" in span else f"{span} --brief --timeout 60")


def test_every_command_of_the_snippet(at_work: Bench) -> None:
    (snippet,) = blocks(SCRIPTS, "markdown")
    spans = [span for span in re.findall(r"`([^`]+)`", snippet) if span.startswith("backprop ")]
    assert len(spans) == 7
    for span in spans[:-1]:
        run(at_work, span.replace("NAME", "exp-7").replace("ARGS", "--lr 1"))
    assert spans[-1] == "backprop worker"


def test_the_client_configuration_names_the_command() -> None:
    (block,) = [one for one in blocks(SCRIPTS, "json") if "mcpServers" in one]
    server = json.loads(block)["mcpServers"]["backprop"]
    assert (server["command"], server["args"]) == ("backprop", ["mcp"])


def test_the_page_has_every_tool_and_what_it_takes() -> None:
    rows = [line.split("|") for line in SCRIPTS.partition("\n## MCP\n")[2].partition("\n## ")[0].splitlines()]
    table = {tool: row[2] for row in rows if len(row) == 4 for tool in re.findall("`([a-z]+)`", row[1])}
    assert table.keys() == TOOLS.keys()
    for name, tool in TOOLS.items():
        assert set(tool.__struct_fields__) <= set(re.findall("`([a-z_]+)`", table[name])), name


def test_the_skill_is_short_has_its_front_matter_and_is_installed() -> None:
    assert len(SKILL.splitlines()) <= MOST_LINES
    front = SKILL.split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert fields.keys() == {"name", "description"}
    assert fields["name"] == "backprop"
    assert len(fields["description"]) <= 1024
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert files["share/backprop/skills/backprop"] == ["skills/backprop/SKILL.md"]
