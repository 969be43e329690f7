"""No chain goes round for ever, none silently begins again at zero, and each says what to do about it."""

import json
import re
import time
import zipfile

import pytest

from tests.support.harness import SCRIPTS, Bench, wait_until

TRAINER = str(SCRIPTS / "trainer.py")
BOX = ("-m", "0.02", "--at-timebox", "end", "--grace-seconds", "20")


def starts(bench: Bench) -> list[str]:
    """ "SEGMENT STEP" of each start of the trainer."""
    return (bench.project / "starts").read_text().splitlines()


def test_a_script_that_never_saves_is_not_started_again_and_says_what_to_do(bench: Bench) -> None:
    run = bench.queue(TRAINER, *BOX, "--", "--save-every", "0", "--no-save-on-stop")
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert len(seen["segments"]) == 1
    assert "no checkpoint found, so it would restart from zero" in seen["reason"]
    assert "SIGINT" in seen["reason"]
    assert re.search(r"first output came after \d+\.\d s", seen["reason"])
    longer = re.search(rf"backprop resume {run} -m ([0-9.]+)(?:;|$)", seen["reason"])
    assert longer
    assert float(longer[1]) >= 0.04


def test_the_advice_given_is_a_command_that_works(bench: Bench) -> None:
    run = bench.queue(TRAINER, *BOX, "--", "--save-every", "0", "--no-save-on-stop", "--steps", "100")
    bench.worker()
    bench.wait_for(run, "timeboxed")
    done = bench.backprop("resume", run, "-m", "5")
    assert done.returncode == 0, done.stderr
    assert "from the beginning: it saved no checkpoint" in done.stdout
    seen = bench.wait_for(run, "completed")
    assert [one["number"] for one in seen["segments"]] == [1, 2], "the history is kept"
    assert starts(bench) == ["1 0", "2 0"]


def test_two_segments_without_a_new_checkpoint_end_the_chain(bench: Bench) -> None:
    run = bench.queue(TRAINER, *BOX, "--", "--save-until", "5", "--no-save-on-stop")
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert [one["outcome"] for one in seen["segments"]] == ["timeboxed"] * 3
    used = [one["checkpoint_used"] for one in seen["segments"]]
    assert used == [None, str(bench.project / "ckpt-5"), str(bench.project / "ckpt-5")]
    assert "2 segments in a row saved no new checkpoint" in seen["reason"]
    assert f"backprop resume {run} -m" in seen["reason"]


def test_a_script_that_is_killed_before_it_has_saved_is_told_of_its_grace(bench: Bench) -> None:
    run = bench.queue(TRAINER, "-m", "0.03", "--at-timebox", "end", "--grace-seconds", "0.3", "--",
                      "--save-every", "0", "--deaf", "INT")  # fmt: skip
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert "killed 0.3 s after the stop signal" in seen["reason"]
    assert "--grace-seconds" in seen["reason"]


def test_announcing_the_checkpoint_one_resumed_from_is_no_progress(bench: Bench) -> None:
    bench.script(
        "parrot.py",
        """
        import json, time
        open("ckpt", "w").write("7")
        print(json.dumps({"event": "checkpoint_saved", "path": "ckpt", "step": 7}), flush=True)
        time.sleep(600)
        """,
    )
    run = bench.queue("parrot.py", *BOX)
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert len(seen["segments"]) == 3
    assert "2 segments in a row" in seen["reason"]


def test_a_run_whose_checkpoints_are_gone_is_held_rather_than_begun_again(bench: Bench) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "60")
    worker = bench.worker()
    bench.wait_for_log(run, "checkpoint_saved")
    bench.end_worker(worker)
    assert bench.state(run) == "queued"
    for path in bench.project.glob("ckpt-*"):
        path.unlink()
    bench.worker()
    seen = bench.wait_for(run, "held")
    assert "none of its checkpoints is good" in seen["reason"]
    assert "it is gone" in seen["reason"]
    assert f"backprop resume {run} --resume-from PATH, or --from-scratch" in seen["reason"]
    assert starts(bench) == ["1 0"]
    done = bench.backprop("resume", run, "--from-scratch")
    assert done.returncode == 0, done.stderr
    seen = bench.wait_for(run, "completed")
    assert seen["segments"][1]["checkpoint_used"] is None
    assert starts(bench) == ["1 0", "2 0"]


def test_a_broken_newest_checkpoint_is_passed_over_for_the_one_before_and_that_is_said(bench: Bench) -> None:
    bench.script(
        "saves.py",
        """
        import json, os, sys, time, zipfile
        if os.environ["BACKPROP_SEGMENT"] == "2":
            sys.exit(0)
        for step in (1, 2, 3):
            with zipfile.ZipFile(f"step-{step}.pt", "w") as file:
                file.writestr("archive/data.pkl", os.urandom(4096))
            print(json.dumps({"event": "checkpoint_saved", "path": f"step-{step}.pt", "step": step}), flush=True)
            time.sleep(0.05)
        time.sleep(600)
        """,
    )
    run = bench.queue("saves.py")
    worker = bench.worker()
    bench.wait_for_log(run, '"step": 3')
    bench.end_worker(worker)
    newest = bench.project / "step-3.pt"
    newest.write_bytes(newest.read_bytes()[:2000])
    assert not zipfile.is_zipfile(newest)
    bench.worker()
    seen = bench.wait_for(run, "completed")
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / "step-2.pt")
    said = [line for line in bench.output(1).splitlines() if "passed over" in line]
    assert len(said) == 1
    assert f"{newest}: a zip file cut off or damaged" in said[0]


def test_max_segments_ends_the_chain_and_resume_grants_as_many_again(bench: Bench) -> None:
    run = bench.queue(TRAINER, *BOX, "--max-segments", "2")
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert len(seen["segments"]) == 2
    assert f"reached --max-segments 2; backprop resume {run} allows 2 more" in seen["reason"]
    assert bench.backprop("resume", run).returncode == 0
    seen = bench.wait_for(run, "timeboxed")
    assert len(seen["segments"]) == 4
    assert seen["segments"][2]["checkpoint_used"], "the chain goes on where it was"


def test_max_total_minutes_ends_the_chain_and_cuts_its_last_segment(bench: Bench) -> None:
    run = bench.queue(TRAINER, "-m", "0.03", "--max-total-minutes", "0.05", "--grace-seconds", "20")
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert f"reached --max-total-minutes 0.05; backprop resume {run} allows 0.05 more" in seen["reason"]
    first, second = seen["segments"]
    assert first["running_s"] >= 1.8
    order = json.loads((bench.folder(run, 2) / "order.json").read_text())
    assert order["timebox_s"] == pytest.approx(max(3.0 - first["running_s"], 1.0), abs=0.01)
    assert first["running_s"] + second["running_s"] >= 3.0


def test_without_auto_resume_one_timebox_is_the_end(bench: Bench) -> None:
    run = bench.queue(TRAINER, *BOX, "--no-auto-resume", "--", "--steps", "90")
    bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    assert len(seen["segments"]) == 1
    assert f"auto-resume is off: backprop resume {run} continues it" in seen["reason"]
    assert bench.backprop("resume", run, "-m", "5").returncode == 0
    seen = bench.wait_for(run, "completed")
    told = [json.loads(line)["step"] for line in bench.log(run).splitlines() if "checkpoint_saved" in line]
    assert starts(bench) == ["1 0", f"2 {told[-1]}"]


def test_a_crash_is_retried_from_its_last_checkpoint_after_a_pause(bench: Bench) -> None:
    bench.script(
        "crash.py",
        """
        import json
        open("ckpt", "w").write("9")
        print(json.dumps({"event": "checkpoint_saved", "path": "ckpt", "step": 9}), flush=True)
        raise ValueError("the loss is nan")
        """,
    )
    run = bench.queue("crash.py", "--retries", "2")
    before_s = time.time()
    worker = bench.worker()
    wait_until(lambda: bench.column(run, "retries_used") == 1)
    seen = bench.show(run)
    assert seen["state"] == "queued"
    assert seen["reason"] == (
        "exited 1: ValueError: the loss is nan; retry 1 of 2 from its last checkpoint in 10 s"
    )
    assert seen["segments"][0]["outcome"] == "failed"
    not_before_s = bench.column(run, "not_before_s")
    assert isinstance(not_before_s, float)
    assert before_s + 10 <= not_before_s <= time.time() + 10
    assert bench.end_worker(worker) == 0
    assert bench.state(run) == "queued", "a retry that is due later is no reason for a worker to stay"


def test_a_crash_without_retries_is_a_failure_that_shows_its_last_line(bench: Bench) -> None:
    bench.script("crash.py", "raise ValueError('the loss is nan')")
    run = bench.queue("crash.py")
    bench.worker("--drain")
    seen = bench.wait_for(run, "failed")
    assert seen["reason"] == "exited 1: ValueError: the loss is nan"
    assert (seen["exit_code"], len(seen["segments"])) == (1, 1)


def test_a_checkpoint_that_its_script_cannot_load_gives_way_to_the_one_before(bench: Bench) -> None:
    bench.script(
        "loads.py",
        """
        import json, os, sys
        given = os.environ.get("BACKPROP_RESUME_FROM")
        if given:
            sys.exit(0 if given.endswith("1") else "it cannot be loaded")
        for step in (1, 2):
            open(f"step-{step}", "w").write("whole")
            print(json.dumps({"event": "checkpoint_saved", "path": f"step-{step}", "step": step}), flush=True)
        sys.exit(75)
        """,
    )
    run = bench.queue("loads.py")
    bench.worker()
    seen = bench.wait_for(run, "completed")
    used = [one["checkpoint_used"] and one["checkpoint_used"][-1] for one in seen["segments"]]
    assert used == [None, "2", "1"]
    assert "it cannot be loaded; at once, with" in seen["segments"][1]["reason"]
    assert [one["refused"] is None for one in seen["checkpoints"]] == [False, True]
    assert "step-1 instead" in bench.output()
