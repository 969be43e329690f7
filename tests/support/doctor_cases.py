"""Asks `backprop doctor`, and makes what it finds."""

import json
import os
import time
from pathlib import Path
from typing import Any

from backprop.cli.exit_codes import DOCTOR_FOUND
from tests.support.harness import Bench

OLD_S = 3600.0
SAVES_AND_WAITS = """
    import json, os, signal, sys, time
    signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
    if os.environ["BACKPROP_SEGMENT"] != "1":
        sys.exit(0)
    open("one.ckpt", "w").write("1")
    print(json.dumps({"event": "checkpoint_saved", "path": "one.ckpt", "step": 1}), flush=True)
    time.sleep(600)
"""


def calm(bench: Bench) -> Bench:
    """Have it look at no GPU, and take a full test machine for no finding: what is left is ours."""
    bench.script("backprop.config.json", '{"gpu": {"probe": "none"}, "minFreeDiskGB": 0}')
    return bench


def not_well(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings that are not "ok"."""
    return [one for one in found.values() if one["level"] != "ok"]


def doctor(bench: Bench, *words: str, **options: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return its exit code, and its findings by name, after checking that the two agree."""
    done = bench.backprop("doctor", "--json", *words, **options)
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    found = {one["name"]: one for one in told["findings"]}
    assert len(found) == len(told["findings"]), "names are given once"
    bad = [one for one in told["findings"] if one["level"] == "bad"]
    assert told["sound"] is (not bad)
    assert done.returncode == (DOCTOR_FOUND if bad else 0), (done, bad)
    return done.returncode, found


def seen(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return everything below, with size, mode and time of change."""
    found = {str(path): path.lstat() for path in (folder, *folder.rglob("*"))}
    return {path: (info.st_size, info.st_mode, info.st_mtime_ns) for path, info in found.items()}


def old(path: Path) -> Path:
    """Make a file as old as one that a dead worker has left."""
    os.utime(path, (time.time() - OLD_S,) * 2, follow_symlinks=False)
    return path
