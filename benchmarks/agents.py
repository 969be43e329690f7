"""Plays what a program asks of a queue, against Backprop and gflow, and prints one row for each want.

`python -m benchmarks.agents GFLOW_BIN`: the folder with the programs of gflow (`pip install runqd`), which needs tmux.
Each tool gets a home of its own and is stopped afterwards. A cell says what was seen, not what the manual says.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

OWN: Final = Path(sys.executable).parent
TOKEN: Final = "hf_" + "x" * 30
FAILS: Final = "import os\nprint('begins', flush=True)\n1 / 0\n"
PATIENCE_S: Final = 30.0


class Player:
    """One tool in a folder of its own. `programs`: where its commands lie."""

    def __init__(self, folder: Path, programs: Path) -> None:
        folder.mkdir()
        (folder / "fails.py").write_text(FAILS)
        self._folder = folder
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "BACKPROP_HOME": str(folder / "home"),
            "TMUX_TMPDIR": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HF_TOKEN": TOKEN,
        }

    def ask(self, *words: str) -> tuple[int, str]:
        """Return the exit code of a command, and what it printed on stdout."""
        done = subprocess.run(
            words,
            env=self.environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command that goes on."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(words, env=self.environment, cwd=self._folder, stdout=quiet, stderr=quiet)

    def holding(self, text: str) -> int:
        """Return how many files below its folder have a text in them."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return sum(text.encode() in path.read_bytes() for path in files)


def is_json(text: str) -> str:
    """Return whether a text is JSON, in words."""
    try:
        json.loads(text)
    except ValueError:
        return "no JSON"
    return "JSON"


def backprop(player: Player) -> list[str]:
    """Return the cells of Backprop."""
    run = (
        "backprop",
        "run",
        "--gpus",
        "0",
        "--max-cpu-load",
        "1000",
        "--min-free-ram",
        "0",
        "--secrets",
        "scrub",
    )
    worker = player.start("backprop", "worker")
    try:
        for _ in range(2):
            player.ask(*run, "--key", "k", "-n", "one", "fails.py")
        twins = len(json.loads(player.ask("backprop", "list", "-n", "0", "--json")[1]))
        code, _ = player.ask("backprop", "wait", "one", "--timeout", "30")
        told = json.loads(player.ask("backprop", "show", "one", "--json")[1])["triage"]
        refused = player.ask("backprop", "show", "nope", "--json")
        _wait(lambda: player.holding(TOKEN) == 0)
        return [
            f"{twins} run",
            f"`wait --timeout`: exit code {code}",
            f"`{told['kind']}` at {told['at']['file']}:{told['at']['line']}",
            f"exit code {refused[0]}, {is_json(refused[1])}",
            f"in {player.holding(TOKEN)} files after its end, with `--secrets scrub`",
        ]
    finally:
        worker.terminate()
        worker.wait()


def gflow(player: Player) -> list[str]:
    """Return the cells of gflow."""
    player.ask("gflowd", "up")
    _wait(lambda: player.ask("gqueue", "-a", "-o", "json")[0] == 0)
    try:
        for _ in range(2):
            player.ask("gbatch", "-n", "one", f"{sys.executable} fails.py")
        code, _ = player.ask("gjob", "wait", "1")
        jobs = json.loads(player.ask("gqueue", "-a", "-o", "json")[1])["jobs"]
        refused = player.ask("gjob", "show", "999")
        return [
            f"{len(jobs)} jobs",
            "no such verb" if code == 2 else f"exit code {code}",
            f"a job has {', '.join(jobs[0])}",
            f"exit code {refused[0]}, {is_json(refused[1])}",
            f"in {player.holding(TOKEN)} files",
        ]
    finally:
        player.ask("gflowd", "down")


def _wait(true_now: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not true_now() and time.monotonic() < end_s:
        time.sleep(0.2)


WANTS: Final = (
    "the same submission twice",
    "a bounded wait for the end",
    "why it failed, for a program",
    "a refusal, for a program",
    "a token of the submitting shell, stored",
)


def main() -> int:
    """Play both and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents", description=__doc__)
    parser.add_argument("gflow", metavar="GFLOW_BIN", type=Path, help="the folder with the programs of gflow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = backprop(Player(Path(folder) / "backprop", OWN))
        theirs = gflow(Player(Path(folder) / "gflow", options.gflow))
    print("| | Backprop | gflow |\n| --- | --- | --- |")
    for row in zip(WANTS, ours, theirs, strict=True):
        print(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
