"""`backprop doctor` as a whole: that looking changes nothing, what a dead worker leaves, and how it is told."""

import json
import subprocess
from pathlib import Path

from backprop.cli.exit_codes import DOCTOR_FOUND
from tests.support.doctor_cases import SAVES_AND_WAITS, calm, doctor, not_well, old, seen
from tests.support.harness import Bench, alive, wait_until


def test_where_nothing_is_yet_nothing_is_made_and_nothing_is_wrong(bench: Bench) -> None:
    code, found = doctor(calm(bench))
    assert code == 0, not_well(found)
    assert not bench.home.exists()
    assert "does not exist yet" in found["home"]["told"]
    assert "3." in found["python"]["told"]
    doctor(bench, "--repair")
    assert not bench.home.exists(), "there was nothing to repair"


def test_one_aligned_line_a_check_and_advice_below(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    bench.queue("train.py")
    lines = bench.backprop("doctor").stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert {line[:6] for line in heads} <= {"ok    ", "note  ", "BAD   "}
    column = min(len(line) - len(line[6:].split("  ", 1)[1].lstrip()) for line in heads)
    for line in heads:
        assert line[column - 1] == " ", line
        assert line[column] != " ", line
    advice = [line for line in lines if line.startswith(" ")]
    assert " " * column + "tmux new -d -s backprop 'backprop worker'" in advice


def test_looking_changes_nothing(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    bench.queue("train.py")
    bench.home.chmod(0o755)
    before = seen(bench.home)
    code, found = doctor(bench)
    assert seen(bench.home) == before
    assert code == 0
    assert "can be read by others (mode 755)" in found["home"]["told"]
    assert found["home"]["level"] == "note"
    assert "sound" in found["database"]["told"]
    assert "rollback journal" in found["database"]["told"]
    assert found["locks"]["level"] == "ok"
    assert "none is running, but 1 run queued" in found["workers"]["told"]
    assert found["workers"]["level"] == "note"
    assert "nothing is repaired" in bench.backprop("--dry-run", "doctor", "--repair").stderr
    assert seen(bench.home) == before
    doctor(bench, "--repair")
    assert bench.home.stat().st_mode & 0o777 == 0o700


def test_a_dead_worker_its_run_and_its_files(bench: Bench) -> None:
    calm(bench).script("train.py", SAVES_AND_WAITS)
    run = bench.queue("train.py")
    worker = bench.worker()
    bench.wait_for_log(run, "checkpoint_saved")
    _, found = doctor(bench)
    assert f"(pid {worker.pid})" in found["workers"]["told"]
    assert found["segments"]["told"] == "1 running"
    assert found["leftovers"]["level"] == "ok"
    assert found["backup"]["level"] == "ok"
    worker.kill()
    worker.wait()
    files = [old(path) for path in bench.home.glob("locks/worker-*")]
    assert len(files) == 2, files
    bench.show(run)  # rolls back what it was killed in the middle of, which the doctor leaves to others
    _, found = doctor(bench)
    assert "is gone: the next worker takes over" in found["segments"]["told"]
    assert found["segments"]["advice"] == "backprop worker"
    assert files[0].name in found["leftovers"]["told"]
    told = json.loads(bench.backprop("doctor", "--json", "--repair").stdout)
    assert any("is dead: struck off" in line for line in told["repaired"]), told
    assert not list(bench.home.glob("locks/worker-*"))
    assert alive(bench.leader(run)), "what lives is not touched"
    again = bench.worker()
    wait_until(lambda: "adopted" in bench.output(1), saw=lambda: bench.output(1))
    bench.end_worker(again)
    bench.worker("--drain")
    assert bench.wait_for(run, "completed")["segment_count"] == 2


def test_from_a_directory_that_is_gone(bench: Bench) -> None:
    script = bench.script(
        "gone.sh", "mkdir gone && cd gone && rmdir ../gone && exec backprop doctor --json\n"
    )
    done = subprocess.run(["sh", str(script)], env=bench.environment, cwd=bench.project, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == DOCTOR_FOUND, done
    assert "the current directory no longer exists" in done.stdout


def test_what_is_told_cannot_steer_a_terminal(bench: Bench, tmp_path: Path) -> None:
    evil = tmp_path / "\x1b]0;owned\x07\u202e"
    done = calm(bench).backprop("doctor", env={"BACKPROP_HOME": str(evil)})
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "owned" in done.stdout
