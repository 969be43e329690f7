"""What docs/cluster.md shows works as it stands, on the same cluster."""

import json
import re

from tests.support.harness import ROOT, wait_until
from tests.support.lab import Lab

PAGE = (ROOT / "docs" / "cluster.md").read_text()


def test_the_script_that_stands_for_a_checkpointable_callable_chains(lab: Lab) -> None:
    match = re.search(r"<!-- submitit -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    lab.bench.script("count.py", match[1])
    run = lab.queue("-m", "0.03", "--grace-seconds", "10", "count.py")
    lab.bench.worker()
    shown = lab.bench.wait_for(run, "completed", timeout_s=110)
    assert len(shown["segments"]) > 1
    assert json.loads((lab.bench.project / "result.json").read_text()) == {"step": 30}


def test_the_doctor_checks_a_cluster_with_a_job(lab: Lab) -> None:
    done = lab.bench.backprop("doctor", "--on", "lab", "--json")
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert "sees the folder" in found["probe"]["told"]
    assert "KillWait" in found["scheduler"]["told"]
    lab.folder.chmod(0o777)
    done = lab.bench.backprop("doctor", "--on", "lab")
    lab.folder.chmod(0o700)
    assert done.returncode != 0
    assert "open to others" in done.stdout
    assert "probe" not in done.stdout


def test_clusters_and_why_say_what_slurm_says(lab: Lab) -> None:
    lab.script()
    lab.configure(maxJobs=1)
    waiting = lab.queue("--submit", "--begin=now+1hour", "steps.py")
    queued = lab.queue("steps.py")
    lab.bench.worker()
    wait_until(lambda: "BeginTime" in lab.bench.backprop("why", waiting).stdout)
    assert re.search(r"lab: job \d+ waits \(BeginTime\)", lab.bench.backprop("why", waiting).stdout)
    wait_until(lambda: "1 of at most 1 jobs are in lab" in lab.bench.backprop("why", queued).stdout)
    (told,) = json.loads(lab.bench.backprop("clusters", "--json").stdout)
    assert (told["name"], told["submitted"], told["queued"], told["max_jobs"]) == ("lab", 1, 1, 1)
    assert "full" in lab.bench.backprop("clusters").stdout
    shown = lab.bench.backprop("show", waiting).stdout
    assert "sbatch --parsable" in shown
    assert "(BeginTime)" in shown
    lab.bench.backprop("stop", waiting, queued)
    lab.bench.wait_for(waiting, "stopped")
