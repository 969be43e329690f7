"""Runs a script that tells with what it was started."""

import json

from tests.support.harness import QUIET_LIMITS, Bench

TELL = """
    import json, os, sys
    names = [name for name in os.environ if name.startswith(("BACKPROP_", "MY_", "PYTHONUNB"))]
    print(json.dumps({"argv": sys.argv, "exe": sys.executable, "prefix": sys.prefix, "cwd": os.getcwd(),
                      "env": {name: os.environ[name] for name in names}}))
"""
TAKES_IT = "    # parser.add_argument('--resume-from')\n"


def run_to_end(bench: Bench, *words: str, env: dict[str, str] | None = None) -> str:
    """Queue and run to the end in a worker; return the run's id."""
    at = words.index("--") if "--" in words else len(words)
    done = bench.backprop("run", "-q", *QUIET_LIMITS, *words[:at], *words[at:], env=env)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    worker = bench.worker("--drain")
    assert worker.wait(timeout=60) == 0, bench.output()
    return run


def told(bench: Bench, run: str, segment: int = 1) -> dict[str, object]:
    """Return what the leader said of itself."""
    (line,) = [line for line in bench.log(run, segment).splitlines() if line.startswith('{"argv"')]
    return json.loads(line)
