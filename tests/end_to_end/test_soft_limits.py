"""A run has the soft limits of the shell that queued it, as far as its worker may grant them."""

import json

import pytest

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench

SCRIPT = """
    import json, resource
    print(json.dumps({name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("NOFILE", "CORE")}))
"""


def under(*limits: str) -> tuple[str, ...]:
    """Return words before a command that set these limits for it."""
    return ("sh", "-c", f'{"; ".join(f"ulimit {one}" for one in limits)}; exec "$0" "$@"', str(COMMAND))


@pytest.mark.parametrize(
    ("shell", "worker", "nofile", "core"),
    [
        (("-Sn 700", "-Sc 0"), ("-Sn 300",), 700, 0),
        (("-Sn 250", "-Sc 8"), ("-Sn 300",), 250, 8 * 512),
        (("-Sn 700",), ("-n 400", "-c 0"), 400, 0),
    ],
    ids=("more", "less", "more-than-allowed"),
)
def test_the_limits_of_the_shell_reach_the_command(
    bench: Bench, shell: tuple[str, ...], worker: tuple[str, ...], nofile: int, core: int
) -> None:
    script = bench.script("limits.py", SCRIPT)
    done = bench.backprop("run", "-q", *QUIET_LIMITS, str(script), command=under(*shell))
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    bench.worker("--drain", command=under(*worker)).wait(timeout=60)
    seen = json.loads(bench.log(run))
    assert (seen["NOFILE"][0], seen["CORE"][0]) == (nofile, core)


def test_a_run_that_was_queued_without_them_has_those_of_its_worker(bench: Bench) -> None:
    run = bench.queue(str(bench.script("limits.py", SCRIPT)))
    path = bench.home / "runs" / run / "spec.json"
    body = json.loads(path.read_text())
    assert body["spec"].pop("soft_limits")["NOFILE"] > 0
    path.write_text(json.dumps(body))
    for name in bench.home.glob("backprop.db*"):
        name.unlink()
    bench.worker("--drain", command=under("-Sn 300")).wait(timeout=60)
    assert json.loads(bench.log(run))["NOFILE"][0] == 300
