"""Checks refusals: one line, its exit code, and an unchanged home."""

import json
from pathlib import Path

from tests.support.harness import Bench
from tests.support.json_schema import check


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return every path below with its size, mode and time of change, by which "wrote nothing" is measured."""
    return {
        str(path.relative_to(folder)): ((info := path.lstat()).st_size, info.st_mode, info.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def at_home(bench: Bench) -> dict[str, tuple[int, int, int]] | None:
    """Return the contents of the home without locks, which are empty."""
    if not bench.home.exists():
        return None
    return {path: seen for path, seen in contents(bench.home).items() if not path.startswith("locks")}


def refused(bench: Bench, code: int, *words: str, env: dict[str, str] | None = None) -> str:
    """Return the one line on stderr of a command that is refused with `code` and changes nothing at home."""
    before = at_home(bench)
    done = bench.backprop(*words, env=env)
    assert done.returncode == code, done
    if "--json" in words:
        check(json.loads(done.stdout), "refusal")
    else:
        assert done.stdout == "", done
    assert done.stderr.startswith("backprop: ")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1, done.stderr
    assert at_home(bench) == before, "nothing half-done"
    return done.stderr
