"""Types the commands of a page of the docs into a shell, and compares what they print with what the page shows.

A block marked ```console is a session: after `$` a command, below it lines of its output. Lines may be left out; those
that are there come in that order. Times, ids, counts and columns differ from run to run, so they are compared by
shape. A block marked ```sh that cannot be run in a test has the line `<!-- not run: why -->` above it.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.harness import ROOT, Bench

_FENCE = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
EASY_MACHINE = {"minFreeRamGB": 0, "maxCpuLoad": 1000, "minFreeDiskGB": 0, "gpu": {"probe": "none"}}
"""So that a busy or small test machine starts runs at once."""


@dataclass
class TypedCommand:
    """One command of a session, and the lines that the page shows of its output."""

    line: str
    shown: list[str] = field(default_factory=list[str])


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return (kind, mark, text) of each fenced block of a page."""
    return [(one["kind"], one["mark"] or "", one["text"]) for one in _FENCE.finditer(page.read_text())]


def session(page: Path) -> list[TypedCommand]:
    """Return the commands of all sessions of a page, and of its ```sh blocks that are not marked otherwise."""
    found: list[TypedCommand] = []
    for kind, mark, text in blocks(page):
        if kind == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    found.append(TypedCommand(line[2:]))
                elif line.startswith("> "):
                    found[-1].line += f"\n{line[2:]}"
                elif line.strip() not in ("", "…"):
                    found[-1].shown.append(line)
        elif kind == "sh" and not mark:
            found.append(TypedCommand(text))
    return found


def files(page: Path) -> dict[str, str]:
    """Return the files that a page shows: blocks marked `<!-- file: NAME -->`."""
    return {mark.removeprefix("file: "): text for _, mark, text in blocks(page) if mark.startswith("file: ")}


def shape(line: str) -> str:
    """Return a line without what differs from run to run: folders, ids, numbers, units, signs, widths."""
    line = re.sub(r"(?<![\w.])/(?:[\w.@+-]+/)+", "/", line)
    line = re.sub(r"\b[0-9a-f]{8}\b|\b[0-9a-f]{4}(?=-\d)|(?<=-)[0-9a-f]{4}\b", "#", line)
    line = re.sub(
        r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", "#", line
    )
    line = re.sub(r"\d[\d:.,]*(?:e[-+]?\d+|m(?:in)?|s|h|kB|MB|GB)?\b", "#", line)
    line = re.sub(r"(?:\d+|#)(?:[hms]#?)*", "#", line)
    return " ".join(re.sub(r"[─━▁▂▃▄▅▆▇█]+", "~", line).split())


def prepare(bench: Bench, page: Path) -> None:
    """Lay out the folder in which the page's reader is: the examples, and the files that the page shows."""
    bench.home.mkdir(mode=0o700, exist_ok=True)
    (bench.home / "config.json").write_text(json.dumps(EASY_MACHINE))
    left_out = shutil.ignore_patterns("__pycache__", "*-out")
    shutil.copytree(ROOT / "examples", bench.project / "examples", ignore=left_out, dirs_exist_ok=True)
    for name, text in files(page).items():
        bench.script(name, text)


def type_it(bench: Bench, page: Path) -> None:
    """Run every command of a page in one shell's folder; fail where one fails or prints something else."""
    prepare(bench, page)
    environment = bench.environment | {"COLUMNS": "110", "TERM": "xterm"}
    for one in session(page):
        done = subprocess.run(
            ["bash", "-c", one.line], cwd=bench.project, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout, f"{one.line}\n{done.stdout}"
        assert one.shown or done.returncode == 0, f"{one.line}\n{done.stdout}"
        missing = first_missing(one.shown, done.stdout)
        assert missing is None, f"{page.name}: {one.line}\ndoes not print: {missing}\nbut:\n{done.stdout}"


def first_missing(shown: list[str], printed: str) -> str | None:
    """Return the first line that is shown and not printed, in the order of the page; None where all are."""
    lines = iter([shape(line) for line in printed.splitlines()])
    for line in shown:
        if not any(shape(line) == one for one in lines):
            return line
    return None
