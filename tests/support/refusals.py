"""What a refusal must be: one line, its code, and a home as it was."""

from pathlib import Path

from tests.support.harness import Bench


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below with its size, mode and time of change: what "wrote nothing" is measured by."""
    return {
        str(path.relative_to(folder)): ((info := path.lstat()).st_size, info.st_mode, info.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def at_home(bench: Bench) -> dict[str, tuple[int, int, int]] | None:
    """What is in the home, but for locks, which hold nothing."""
    if not bench.home.exists():
        return None
    return {path: seen for path, seen in contents(bench.home).items() if not path.startswith("locks")}


def refused(bench: Bench, code: int, *words: str, env: dict[str, str] | None = None) -> str:
    """The one line on stderr of a command that is refused with `code`, and changes nothing at home."""
    before = at_home(bench)
    done = bench.backprop(*words, env=env)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("backprop: ")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1, done.stderr
    assert at_home(bench) == before, "nothing half-done"
    return done.stderr
