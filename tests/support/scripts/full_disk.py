"""Fills a disk while a run is running. Run inside a mount namespace: full_disk.py FOLDER DISK."""

import json
import sys
import time
from pathlib import Path

from tests.support import promises as books
from tests.support.harness import Bench, alive, wait_until

LEDGER = str(Path(__file__).parent / "ledger.py")
folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
bench = Bench(folder)
bench.home = disk / "home"
bench.environment["BACKPROP_HOME"] = str(bench.home)
bench.home.mkdir(mode=0o700)
(bench.home / "config.json").write_text(json.dumps({"minFreeDiskGB": 0}))
ballast = disk / "ballast"
bench.script(
    "printer.py",
    """
    import time
    while True:
        print("." * 1000, flush=True)
        time.sleep(0.02)
    """,
)
try:
    run = bench.queue(
        LEDGER,
        "-m",
        "0.05",
        "--at-timebox",
        "end",
        "--grace-seconds",
        "10",
        "--",
        "--steps",
        "200",
        "--pace",
        "0.02",
    )
    printer = bench.queue("printer.py")
    waiting = bench.queue(LEDGER, "--", "--steps", "3")
    bench.worker("-p", "2")
    bench.wait_for_log(run, "checkpoint_saved")
    bench.wait_for_log(printer, "...")
    leader = bench.leader(run)
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    assert alive(leader), "nobody has killed it"
    for words in (("list",), ("list", "--json"), ("status",), ("show", run), ("logs", run)):
        done = bench.backprop(*words)
        assert done.returncode == 0, (words, done.stderr)
    refused = bench.backprop("run", LEDGER, "--", "--steps", "1")
    assert refused.returncode == 9
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    wait_until(lambda: not alive(leader), timeout_s=60)
    assert "trouble" in bench.output() or "running" in bench.state(run)
    time.sleep(1.5)  # of trying in vain
    assert not (bench.folder(run) / "exit.json").exists(), "there was no room for it"
    assert bench.workers[0].poll() is None
    ballast.unlink()
    wait_until(lambda: bench.state(printer) == "queued", saw=bench.output)
    ended = bench.show(printer)["segments"][0]["reason"]
    assert ended.startswith("disk full: there was no room for its output (exit code 1); again from"), ended
    assert bench.backprop("stop", printer).returncode == 0
    for one in (run, waiting):
        bench.wait_for(one, "completed", timeout_s=120)
    seen = bench.show(run)["segments"][0]
    assert seen["outcome"] == "timeboxed", seen
finally:
    ballast.unlink(missing_ok=True)
    bench.close()
found = books.faults(bench.home, bench.project)
assert not found, found
assert {row["id"] for row in books.rows(bench.home, "runs")} == {run, waiting, printer}
assert not list(bench.home.rglob("*.part")), "half a backup would count as one"
print("well")
