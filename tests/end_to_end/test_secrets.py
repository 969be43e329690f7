"""`--secrets scrub`: no credential is left of a run that has ended, and a resume takes them from its shell."""

from pathlib import Path

from tests.support.harness import Bench, wait_until

TOKEN = "hf_" + "x" * 30
URL = "postgres://ada:pa55w0rd@db/x"
NEEDS = """
    import os, sys
    print("has", os.environ.get("HF_TOKEN"), os.environ.get("LESS"), flush=True)
    print("end", flush=True)
    sys.exit(int(os.environ.get("HF_TOKEN") is None or "fail" in sys.argv))
"""


def holding(home: Path, text: str) -> list[str]:
    """Return the files of a home in which a text stands, but for logs, which are the script's own."""
    return [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and path.name != "log" and text.encode() in path.read_bytes()
    ]


def test_nothing_is_left_of_them_and_a_resume_asks_its_shell(bench: Bench) -> None:
    bench.script("needs.py", NEEDS)
    bench.environment |= {"HF_TOKEN": TOKEN, "DATABASE_URL": URL, "LESS": "-R"}
    run = bench.queue("needs.py", "--secrets", "scrub", "--", "fail")
    kept = bench.queue("needs.py", "--", "fail")
    assert holding(bench.home / "runs" / run, TOKEN)
    bench.worker()
    bench.wait_for(run, "failed")
    bench.wait_for(kept, "failed")
    wait_until(lambda: not holding(bench.home / "runs" / run, TOKEN), saw=bench.output)
    assert not holding(bench.home / "runs" / run, "pa55w0rd")
    assert holding(bench.home, TOKEN) == [f"runs/{kept}/spec.json"]
    bare = {"HF_TOKEN": "hf_" + "y" * 30, "DATABASE_URL": ""}
    del bench.environment["DATABASE_URL"]
    done = bench.backprop("resume", run, env={"HF_TOKEN": bare["HF_TOKEN"]})
    assert "note: HF_TOKEN: taken from this shell, since the stored values were removed" in done.stderr
    assert "note: DATABASE_URL: not set in this shell" in done.stderr
    wait_until(lambda: bare["HF_TOKEN"] in bench.log(run, 2), saw=lambda: bench.log(run, 2))
    assert "-R" in bench.log(run, 2), "what is no credential stays"
    wait_until(lambda: not holding(bench.home / "runs" / run, bare["HF_TOKEN"]), saw=bench.output)


def test_a_sweep_keeps_them_until_its_last_member_has_ended(bench: Bench) -> None:
    bench.script("needs.py", NEEDS)
    bench.environment["HF_TOKEN"] = TOKEN
    done = bench.backprop(
        "run", "-q", "--gpus", "0", "--min-free-ram", "0", "--max-cpu-load", "1000", "--secrets", "scrub", "--array",
        "1-3", "--hold", "needs.py",
    )  # fmt: skip
    first, second, third = done.stdout.split()
    bench.backprop("stop", first)
    bench.worker()
    bench.backprop("release", second)
    bench.wait_for(second, "completed")
    wait_until(lambda: not holding(bench.home / "runs" / second, TOKEN), saw=bench.output)
    assert [path for path in holding(bench.home, TOKEN) if path.startswith("batches/")]
    bench.backprop("stop", third)
    wait_until(lambda: not holding(bench.home, TOKEN), saw=lambda: holding(bench.home, TOKEN))
    again = bench.backprop("resume", first, "--json")
    assert "HF_TOKEN: taken from this shell" in again.stdout
    bench.wait_for(first, "completed")


def test_a_copy_of_a_scrubbed_run_takes_them_too(bench: Bench) -> None:
    bench.script("needs.py", NEEDS)
    run = bench.queue("needs.py", "--secrets", "scrub", "--env", f"HF_TOKEN={TOKEN}")
    bench.worker()
    bench.wait_for(run, "completed")
    wait_until(lambda: not holding(bench.home, TOKEN), saw=bench.output)
    done = bench.backprop("resume", run, "--as-new", env={"HF_TOKEN": TOKEN})
    assert "HF_TOKEN: taken from this shell" in done.stderr
    copy = done.stdout.split("id ")[1].split()[0].strip(".,")
    bench.wait_for(copy, "completed")
