"""A newcomer on a fresh machine: each install line of the README, then its session and the tutorial.

`HOME` is a new folder, nothing is cached, and Backprop comes from a copy of the checkout. Whatever the lines install is
what the session is typed with.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.fresh_machine import copy_checkout, environment, run
from tests.support.harness import ROOT, Bench
from tests.support.typed_pages import blocks, type_it

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
README = ROOT / "README.md"


def marked(mark: str) -> str:
    (text,) = [text for _, found, text in blocks(README) if found == mark]
    return text


INSTALL = [line.partition("   #")[0].strip() for line in marked("install").splitlines()]
TOOLS = {"uv": ".local/bin", "pipx": ".local/bin", "python3": ".venvs/backprop/bin"}
"""What an install line begins with, and where below HOME it puts the command."""


def test_the_readme_has_a_line_for_each_way() -> None:
    assert [line.split()[0] for line in INSTALL] == list(TOOLS)


@pytest.mark.parametrize("line", INSTALL, ids=lambda line: str(line).split()[0])
def test_an_install_line_then_the_session_and_the_tutorial(bench: Bench, tmp_path: Path, line: str) -> None:
    tool = line.split()[0]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    home = tmp_path / "newcomer"
    home.mkdir()
    folders = {
        "PIPX_HOME": str(home / "pipx"),
        "PIPX_BIN_DIR": str(home / ".local/bin"),
        "UV_PYTHON": sys.executable,
    }
    run("bash", "-c", line, cwd=copy_checkout(tmp_path / "checkout"), env={"HOME": str(home)} | folders)
    command = home / TOOLS[tool] / "backprop"
    assert "backprop, version" in run(command, "--version", cwd=home)
    bench.environment = environment(
        HOME=str(home),
        BACKPROP_HOME=str(bench.home),
        PATH=f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    type_it(bench, README)
    if tool == "python3":  # the same commands by the same wheel: once is enough
        bench.home = tmp_path / "second-home"
        bench.environment["BACKPROP_HOME"] = str(bench.home)
        type_it(bench, ROOT / "docs" / "tutorial.md")


def test_the_line_to_look_before_one_installs(tmp_path: Path) -> None:
    home = tmp_path / "newcomer"
    home.mkdir()
    # The line has no word for a busy test machine, on which the run would wait.
    (home / ".backprop").mkdir(mode=0o700)
    (home / ".backprop" / "config.json").write_text('{"maxCpuLoad": 1000}')
    checkout = copy_checkout(tmp_path / "checkout")
    out = run("bash", "-c", marked("run"), cwd=checkout, env={"HOME": str(home)})
    assert "==> segment 2 <==" in out
    assert "stopped and resumed" in out
    assert "completed: exited 0" in out
