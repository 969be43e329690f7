"""What becomes of a run at the end of its timebox: whatever it saves or does not, none of its work is lost."""

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.support.fake_gpus import impatient
from tests.support.harness import Bench, wait_until

BOX_MIN = "0.05"
"""Three seconds."""
SAVES_NOTHING = """
    import sys, time
    for step in range(int(sys.argv[1])):
        print("at", step, flush=True)
        time.sleep(0.05)
    print("done", flush=True)
"""
DEAD = """
    import time
    print("ready", flush=True)
    time.sleep(600)
"""
TRAINER = '''
    """Saves every `--every` seconds from the time `--first` on, and on SIGINT where `--asked`; then goes on from it."""
    import argparse, json, os, signal, sys, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume-from")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--first", type=float, default=0.0)
    parser.add_argument("--every", type=float, default=0.3)
    parser.add_argument("--asked", action="store_true")
    given = parser.parse_args()
    asked = []
    if given.asked:
        signal.signal(signal.SIGINT, lambda *_: asked.append(1))
    step = json.load(open(given.resume_from))["step"] if given.resume_from else 0
    def say(**event):
        print(json.dumps(event), flush=True)
    def save():
        path = f"step-{step}.json"
        with open(path + ".new", "w") as file:
            json.dump({"step": step}, file)
        os.replace(path + ".new", path)
        say(event="checkpoint_saved", path=path, step=step)
    began = saved = time.monotonic()
    while step < given.steps:
        step += 1
        say(event="progress", step=step)
        time.sleep(0.05)
        if asked:
            save()
            sys.exit(75)
        now = time.monotonic()
        if now - began >= given.first and now - saved >= given.every:
            saved = now
            save()
    say(event="progress", step=step, loss=0.0)
'''


def decisions(bench: Bench, run: str, segment: int = 1) -> list[str]:
    found = sorted(bench.folder(run, segment).glob("box-*.json"), key=lambda path: int(path.stem[4:]))
    return [json.loads(path.read_text())["choice"] for path in found]


def chain(shown: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["outcome"], one["boxes"]) for one in shown["segments"]]


def test_one_that_saves_nothing_and_is_alone_completes_in_one_segment(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    run = bench.queue("plain.py", "-m", BOX_MIN, "--", "180")
    bench.worker("--drain")
    shown = bench.wait_for(run, "completed", "timeboxed")
    ((outcome, boxes),) = chain(shown)
    assert outcome == "completed"
    assert boxes >= 3
    assert shown["boxes"] == boxes
    assert decisions(bench, run) == ["renew"] * (boxes - 1)
    assert "done" in bench.log(run)


def test_one_that_saves_nothing_goes_on_while_another_waits_and_says_so(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    first = bench.queue("plain.py", "-m", BOX_MIN, "--no-suspend", "--", "140")
    second = bench.queue("plain.py", "-m", BOX_MIN, "-n", "second", "--", "1")
    bench.worker("-p", "1", "--drain")
    wait_until(lambda: "runs past its timebox" in str(bench.column(first, "reason")), saw=bench.output)
    assert "nothing is known to resume it with" in str(bench.column(first, "reason"))
    assert bench.state(second) == "queued"
    assert [one["outcome"] for one in bench.wait_for(first, "completed")["segments"]] == ["completed"]
    bench.wait_for(second, "completed")


def test_one_that_saves_and_resumes_is_ended_at_each_box(bench: Bench) -> None:
    bench.script("trainer.py", TRAINER)
    run = bench.queue("trainer.py", "-m", BOX_MIN, "--", "--steps", "130", "--asked")
    bench.worker("--drain")
    shown = bench.wait_for(run, "completed", "timeboxed")
    assert len(shown["segments"]) >= 3
    assert set(chain(shown)[:-1]) == {("timeboxed", 1)}
    assert shown["last_step"] == 130
    assert shown["state"] == "completed"


def test_a_first_save_after_the_box_is_waited_for_and_then_it_ends(bench: Bench) -> None:
    """Such as a script that compiles for longer than its box."""
    bench.script("trainer.py", TRAINER)
    run = bench.queue("trainer.py", "-m", BOX_MIN, "--", "--first", "4.5", "--steps", "220")
    bench.worker("--drain")
    shown = bench.wait_for(run, "completed", "timeboxed")
    first = shown["segments"][0]
    assert (first["outcome"], first["boxes"]) == ("timeboxed", 2)
    assert first["cut_cost_s"] < 2
    assert shown["state"] == "completed"


def test_one_that_saves_only_when_it_got_better_is_not_ended_long_after(bench: Bench) -> None:
    """Its best came early; nothing says when the next one will come."""
    bench.script("trainer.py", TRAINER)
    run = bench.queue("trainer.py", "-m", BOX_MIN, "--", "--every", "1000", "--first", "1", "--steps", "150")
    bench.worker("--drain")
    shown = bench.wait_for(run, "completed", "timeboxed")
    assert [one["outcome"] for one in shown["segments"]] == ["completed"]


def test_a_box_without_a_sign_of_life_is_the_last(bench: Bench) -> None:
    bench.script("dead.py", DEAD)
    run = bench.queue("dead.py", "-m", BOX_MIN)
    bench.worker("--drain", command=impatient("worker.segments.boxes.keeper.LIFELESS_S=1"))
    shown = bench.wait_for(run, "timeboxed", "completed")
    assert shown["reason"].startswith("no sign of life for a whole timebox")
    assert chain(shown) == [("timeboxed", 2)]


def test_short_boxes_are_lifeless_together(bench: Bench) -> None:
    """A silence that is shorter than LIFELESS_S ends nothing, however short the boxes are."""
    bench.script("dead.py", DEAD)
    run = bench.queue("dead.py", "-m", BOX_MIN)
    bench.worker("--drain", command=impatient("worker.segments.boxes.keeper.LIFELESS_S=5"))
    shown = bench.wait_for(run, "timeboxed", "completed")
    assert shown["reason"].startswith("no sign of life for a whole timebox")
    assert chain(shown) == [("timeboxed", 3)]


def test_who_is_quiet_for_longer_than_a_short_box_comes_to_its_end(bench: Bench) -> None:
    """It has written a file that nobody can hand back: its end would be the loss of all of it."""
    bench.script(
        "quiet.py",
        """
        import time
        for step in range(1, 41):
            print(f"step {step}/40 loss {1 / step:.4f}", flush=True)
            open(f"model-{step}.pt", "w").write("x" * 100)
            time.sleep(0.05)
        time.sleep(9)
        print("done", flush=True)
        """,
    )
    run = bench.queue("quiet.py", "-m", BOX_MIN)
    bench.worker("--drain")
    shown = bench.wait_for(run, "timeboxed", "completed")
    assert shown["state"] == "completed", shown["reason"]
    assert shown["boxes"] >= 4


def test_end_is_the_end_as_it_always_was(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    run = bench.queue("plain.py", "-m", BOX_MIN, "--at-timebox", "end", "--", "1000")
    bench.worker("--drain")
    shown = bench.wait_for(run, "timeboxed")
    assert shown["reason"].startswith("stopped after its timebox: no checkpoint found")
    assert decisions(bench, run) == []


def test_a_chain_of_renewed_boxes_has_its_bounds(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    run = bench.queue("plain.py", "-m", BOX_MIN, "--max-segments", "2", "--", "1000")
    other = bench.queue("plain.py", "-m", BOX_MIN, "--max-total-minutes", "0.075", "--", "1000")
    bench.worker("--drain")
    for each, reason in ((run, "reached --max-segments 2"), (other, "reached --max-total-minutes 0.075")):
        shown = bench.wait_for(each, "timeboxed", "completed")
        assert shown["reason"].startswith(reason)
        assert chain(shown) == [("timeboxed", 2)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_gone_before_the_end_ends_nothing(bench: Bench, number: signal.Signals) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    run = bench.queue("plain.py", "-m", BOX_MIN, "--", "160")
    worker = bench.worker()
    bench.wait_for_log(run, "at 20")
    os.kill(worker.pid, number)
    bench.wait_for_log(run, "at 100")  # well beyond its box
    assert not (bench.folder(run) / "stop.json").exists()
    if number == signal.SIGSTOP:
        os.kill(worker.pid, signal.SIGCONT)
    else:
        bench.worker("--drain")
    shown = bench.wait_for(run, "completed", "timeboxed")
    ((outcome, boxes),) = chain(shown)
    assert outcome == "completed"
    assert boxes >= 2


def test_the_first_signal_leaves_alone_what_would_lose_work(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    bench.script("trainer.py", TRAINER)
    plain = bench.queue("plain.py", "--", "2000")
    saves = bench.queue("trainer.py", "-m", BOX_MIN, "--", "--steps", "100000", "--asked")
    worker = bench.worker()
    bench.wait_for_log(plain, "at 230")  # more than ten seconds of work
    wait_until(lambda: int(str(bench.column(saves, "segment"))) >= 3, saw=bench.output)
    bench.end_worker(worker)
    assert "1 segment asked to checkpoint, 1 left running" in bench.output()
    assert bench.state(saves) == "queued"
    assert bench.state(plain) == "running"
    assert not (bench.folder(plain) / "stop.json").exists()
    bench.backprop("stop", saves)
    bench.worker()
    wait_until(lambda: "adopted" in bench.output(1), saw=lambda: bench.output(1))
    bench.backprop("stop", plain)
    assert len(bench.wait_for(plain, "stopped")["segments"]) == 1


def test_a_waiting_run_is_told_who_is_past_its_timebox(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    first = bench.queue("plain.py", "-m", "0.02", "--no-suspend", "--", "1000")
    second = bench.queue("plain.py", "--", "1")
    bench.worker("-p", "1")
    wait_until(lambda: int(str(bench.column(first, "boxes"))) >= 3, saw=bench.output)
    told = bench.backprop("why", second).stdout
    assert f"plain ({first}) runs past its timebox" in told
    assert f"backprop stop {first}" in told
    assert json.loads(bench.backprop("why", second, "--json").stdout)["blocked_by"][0]["id"] == first
    bench.backprop("stop", first)
    bench.wait_for(second, "completed")


def test_outside_its_hours_only_what_loses_nothing_is_ended(bench: Bench) -> None:
    """The one saves, and nothing resumes it; the other one saves when it is asked."""
    bench.script(
        "plain.py",
        SAVES_NOTHING.replace("print(", "open('ckpt_last.pkl', 'wb').write(b'\\x80\\x04N.'); print("),
    )
    bench.script("trainer.py", TRAINER)
    plain = bench.queue("plain.py", "-m", BOX_MIN, "--recipe", "none", "--no-suspend", "--", "170")
    saves = bench.queue("trainer.py", "-m", BOX_MIN, "--", "--steps", "900", "--asked")
    first = bench.worker("-p", "2")
    wait_until(lambda: all((bench.folder(run, 1) / "processes.json").exists() for run in (plain, saves)))
    first.kill()
    first.wait()
    hour = (time.localtime().tm_hour + 12) % 24
    bench.worker("-p", "2", "--active-hours", f"{hour:02}:00-{hour:02}:30")
    shown = bench.wait_for(plain, "completed", "timeboxed", "stopped", "failed")
    assert [one["outcome"] for one in shown["segments"]] == ["completed"]
    assert bench.state(saves) == "queued"
    assert {one["outcome"] for one in bench.show(saves)["segments"]} == {"timeboxed"}


def test_the_minutes_of_a_config_file_are_a_box_as_any(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    bench.home.mkdir(mode=0o700)
    (bench.home / "config.json").write_text('{"maxRunMinutes": 0.03}')
    run = bench.queue("plain.py", "--", "90")
    bench.worker("--drain")
    shown = bench.wait_for(run, "completed", "timeboxed")
    assert [one["outcome"] for one in shown["segments"]] == ["completed"]
    assert shown["boxes"] >= 2


def test_options_that_disagree_and_what_an_editor_shows(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    refused = bench.backprop("run", "plain.py", "-m", "5", "--no-timebox")
    assert refused.returncode == 6
    assert "--no-timebox and -m disagree; give one of them" in refused.stderr
    run = bench.queue("plain.py", "--no-timebox", "--", "1")
    assert bench.show(run)["at_timebox"] == "none"
    text = bench.backprop("edit", run, "--dry-run").stdout
    assert 'maxRunMinutes = "none"' in text
    assert 'atTimebox = "auto"' in text
    bench.worker("--drain")
    bench.wait_for(run, "completed")
    again = bench.backprop("resume", run, "-m", "2", "--at-timebox", "end")
    assert again.returncode == 0, again.stderr
    assert bench.show(run)["at_timebox"] == "end"
