"""Runs go to a real Slurm: chains of jobs, and what becomes of them when jobs, workers and nodes are ended."""

import os
import signal

import pytest

from tests.support.harness import stays_true, wait_until
from tests.support.lab import Lab

PATIENCE_S = 60.0


def begun(lab: Lab, run: str, segment: int = 1) -> None:
    """Wait until a segment's leader has done a step."""
    wait_until(
        lambda: any(number == str(segment) for _, number in lab.steps(run)),
        timeout_s=PATIENCE_S,
        saw=lambda: (lab.bench.output(), lab.slurm.jobs()),
    )


def alone(lab: Lab, run: str) -> bool:
    return not (lab.bench.project / f"steps-{run}" / "doubles").exists()


def agent_of(lab: Lab, run: str, segment: int = 1) -> int:
    import json

    return int(json.loads((lab.bench.folder(run, segment) / "started.json").read_text())["pid"])


def test_a_chain_of_jobs_completes_and_no_secret_reaches_slurm(lab: Lab) -> None:
    lab.script()
    lab.bench.environment["SECRET_MARKER"] = "marker-8d1f3a"
    run = lab.queue("-m", "0.05", "--grace-seconds", "5", "steps.py", "--", "--steps", "40")
    lab.bench.worker()
    begun(lab, run)
    told = lab.slurm.ask("scontrol", "show", "job", lab.job(run))
    assert "marker-8d1f3a" not in told
    spooled = [path for path in lab.slurm.folder.rglob("*") if path.is_file()]
    assert not [path for path in spooled if b"marker-8d1f3a" in path.read_bytes()]
    shown = lab.bench.wait_for(run, "completed", timeout_s=120)
    assert len(shown["segments"]) > 1
    assert [step for step, _ in lab.steps(run)] == list(range(1, 41))
    assert alone(lab, run)
    folder = lab.bench.home / "runs" / run
    assert folder.is_symlink()
    assert folder.readlink() == lab.folder / "runs" / run
    assert not list(lab.folder.glob("runs/*/*/environment.json"))


@pytest.mark.parametrize("hears", [(), ("--term",)], ids=["dies of TERM", "exits 0 at TERM"])
def test_whoever_cancels_a_job_stops_the_run_and_resume_continues_it(
    lab: Lab, hears: tuple[str, ...]
) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "100", *hears)
    lab.bench.worker()
    begun(lab, run)
    lab.slurm.ask("scancel", lab.job(run))
    shown = lab.bench.wait_for(run, "stopped")
    assert "was cancelled in the cluster" in shown["reason"]
    assert lab.bench.backprop("resume", run).returncode == 0
    lab.bench.wait_for(run, "completed")
    assert [step for step, _ in lab.steps(run)] == list(range(1, 101))


def test_stop_saves_a_running_job_and_withdraws_a_waiting_one(lab: Lab) -> None:
    lab.script()
    running = lab.queue("steps.py", "--", "--steps", "10000")
    waiting = lab.queue("--submit", "--begin=now+1hour", "steps.py", "--", "--steps", "10000")
    lab.bench.worker()
    begun(lab, running)
    lab.bench.wait_for(waiting, "submitted")
    lab.job(waiting)
    wait_until(lambda: "BeginTime" in lab.bench.show(waiting)["reason"], saw=lambda: lab.bench.show(waiting))
    assert lab.bench.backprop("stop", running, waiting).returncode == 0
    lab.bench.wait_for(waiting, "stopped")
    shown = lab.bench.wait_for(running, "stopped")
    assert shown["reason"].startswith("stopped by the user")
    wait_until(lambda: not lab.slurm.jobs(), timeout_s=PATIENCE_S, saw=lab.slurm.jobs)
    assert not lab.steps(waiting)


def test_a_killed_worker_changes_nothing(lab: Lab) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "60")
    worker = lab.bench.worker()
    begun(lab, run)
    worker.kill()
    worker.wait()
    wait_until(lambda: len(lab.steps(run)) > 20, timeout_s=PATIENCE_S)
    lab.bench.worker()
    shown = lab.bench.wait_for(run, "completed")
    assert len(shown["segments"]) == 1


def test_ctrl_c_leaves_jobs_alone(lab: Lab) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "80")
    worker = lab.bench.worker()
    begun(lab, run)
    worker.send_signal(signal.SIGINT)
    worker.wait(20)
    assert lab.bench.state(run) == "running"
    lab.bench.worker()
    shown = lab.bench.wait_for(run, "completed")
    assert len(shown["segments"]) == 1


@pytest.mark.parametrize("who", ["agent", "supervisor", "both"])
def test_a_killed_agent_or_supervisor_costs_at_most_the_work_since_the_last_save(lab: Lab, who: str) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "60", "--pause", "0.2")
    lab.bench.worker()
    begun(lab, run)
    victims = [agent_of(lab, run)] if who != "supervisor" else []
    victims += [lab.bench.supervisor(run)] if who != "agent" else []
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    lab.bench.wait_for(run, "completed", timeout_s=110)
    assert [step for step, _ in lab.steps(run)] == list(range(1, 61))
    assert alone(lab, run)


@pytest.mark.parametrize("partition", ["low", pytest.param("lowgrace", marks=pytest.mark.long)])
def test_a_preempted_run_goes_on_without_a_strike(lab: Lab, partition: str) -> None:
    lab.script()
    steps = "60" if partition == "low" else "600"
    run = lab.queue("--submit", f"-p {partition} --exclusive", "steps.py", "--", "--steps", steps, "--term")
    lab.bench.worker()
    begun(lab, run)
    hog = lab.slurm.ask(
        "sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5"
    )
    wait_until(lambda: len(lab.bench.show(run)["segments"]) > 1, timeout_s=90, saw=lab.slurm.jobs)
    first = lab.bench.show(run)["segments"][0]
    assert first["outcome"] == "yielded", (first, hog)
    assert "preempted" in first["reason"] or "cancelled" not in first["reason"]
    lab.bench.wait_for(run, "completed", timeout_s=90)
    assert alone(lab, run)


def test_a_requeue_by_force_never_begins_a_second_leader(lab: Lab) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "80")
    lab.bench.worker()
    begun(lab, run)
    lab.slurm.ask("scontrol", "requeue", lab.job(run), check=False)
    lab.bench.wait_for(run, "completed", timeout_s=110)
    assert alone(lab, run)


def test_slurm_without_its_controller_changes_no_run(lab: Lab) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "40")
    lab.bench.worker()
    begun(lab, run)
    lab.slurm.end_daemon("slurmctld")
    try:
        local = lab.bench.queue("--gpus", "0", "steps.py", "--", "--steps", "3")
        lab.bench.wait_for(local, "completed", timeout_s=15)
        lab.bench.wait_for(run, "completed", timeout_s=40)
        other = lab.queue("steps.py", "--", "--steps", "5")
        wait_until(lambda: "not" in lab.bench.show(other)["reason"], saw=lambda: lab.bench.show(other))
        stays_true(lambda: lab.bench.state(other) in ("queued", "submitted"), 3)
    finally:
        lab.slurm.start_daemon("slurmctld")
        lab.slurm.wait_for_nodes()
    lab.bench.wait_for(other, "completed", timeout_s=110)


REFUSED = {
    "partition": ("--submit", "-p nowhere"),
    "gres": ("--submit", "--gres=tpu:1"),
    "nodes": ("--submit", "-N 9"),
    "memory": ("--mem", "2000"),
    "cpus": ("--cpus", "999"),
    "reservation": ("--submit", "--reservation=none"),
    "option": ("--submit", "--no-such-option"),
    "feature": ("--submit", "--constraint=quantum"),
    "time": ("--submit", "-p short", "-m", "30"),
    "gpu type": ("--gpu-type", "h999", "--gpus", "1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_slurm_refuses_is_refused_at_once_in_its_words(lab: Lab, what: str) -> None:
    lab.script()
    words = ("--on", "lab", "--gpus", "0", *REFUSED[what], "steps.py")
    done = lab.bench.backprop("run", *words)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.splitlines()[-1].startswith("backprop: lab refuses it: ")
    assert lab.bench.backprop("list").stdout == ""


def test_what_slurm_refuses_later_holds_the_run(lab: Lab) -> None:
    lab.script()
    away = lab.slurm.environment | {"SLURM_CONF": "/nonexistent/slurm.conf"}
    words = ("--on", "lab", "--gpus", "0", "--submit", "-p nowhere", "steps.py")
    done = lab.bench.backprop("run", "-q", *words, env=away)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    lab.bench.worker()
    shown = lab.bench.wait_for(run, "held")
    assert "the cluster refuses it: " in shown["reason"]
    assert not lab.steps(run)


BAD = {
    "no such cluster": (("--on", "elsewhere"), 6, "no such cluster in your config.json (there: lab)"),
    "cpus here": (("--cpus", "2"), 6, "--cpus is for a job of a cluster; give --on CLUSTER"),
    "mem here": (("--mem", "2"), 6, "--mem is for a job of a cluster"),
    "gpu type here": (("--gpu-type", "a100"), 6, "--gpu-type is for a job of a cluster"),
    "options of ours": (("--on", "lab", "--submit", "--time=5"), 6, "--time=5 for the cluster"),
    "short ones": (("--on", "lab", "--submit", "-J name"), 6, "-J for the cluster"),
    "begun ones": (("--on", "lab", "--submit", "--dep=4"), 6, "--dep=4 for the cluster"),
    "no timebox": (("--on", "lab", "--no-timebox"), 6, "needs a time limit"),
    "a name": (("--on", "a b"), 5, "here, or the name of a cluster"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_line_and_queues_nothing(lab: Lab, what: str) -> None:
    words, code, said = BAD[what]
    lab.script()
    done = lab.bench.backprop("run", *words, "steps.py")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("what", ["open", "missing", "a file", "planted link"])
def test_a_folder_that_cannot_be_trusted_is_refused(lab: Lab, what: str) -> None:
    lab.script()
    if what == "open":
        lab.folder.chmod(0o755)
    elif what == "missing":
        lab.folder.rmdir()
    elif what == "a file":
        lab.folder.rmdir()
        lab.folder.write_text("")
    else:
        other = lab.folder.with_name("other")
        lab.folder.rename(other)
        lab.folder.symlink_to(other)
    done = lab.bench.backprop("run", "--on", "lab", "--gpus", "0", "steps.py")
    assert done.returncode != 0
    assert str(lab.folder) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert lab.bench.backprop("list").stdout == ""
    if what == "a file":
        lab.folder.unlink()


def test_suspending_is_for_this_machine(lab: Lab) -> None:
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "10000")
    lab.bench.worker()
    begun(lab, run)
    done = lab.bench.backprop("suspend", run)
    assert done.returncode == 10
    assert "of this machine" in done.stderr
    lab.bench.backprop("stop", run)
    lab.bench.wait_for(run, "stopped")
