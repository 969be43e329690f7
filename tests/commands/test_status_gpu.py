"""`status` and `why` on a machine with GPUs: every amount, every reason, for people and as JSON."""

import getpass
import json
import re
import signal
import subprocess
import sys
import time

from tests.support.fake_gpus import QUICK, impatient, queue, status, wait_for_reason
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import COMMAND, Bench, wait_until

A = FakeGpu("GPU-aaaa", temp=61, util=87, reserved=576, name="Fake RTX")
HOT = FakeGpu("GPU-bbbb", temp=82, used=1000, reserved=576, slowdown=70)


def test_status_without_a_queue(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A, HOT)
    shown = bench.backprop("status").stdout
    assert "GPUs    2, read by nvml" in shown
    assert "worker  none is running; start one with: backprop worker" in shown
    assert re.search(r"0  23\.4 GiB  24 GiB +- +- +61 °C +85 °C +87 % +Fake RTX", shown)
    assert re.search(r"1  22\.5 GiB  24 GiB +- +1000 MiB +82 °C +70 °C +0 % +Fake GPU", shown)
    assert not bench.home.exists()
    told = status(bench)
    assert [gpu["uuid"] for gpu in told["gpus"]] == ["GPU-aaaa", "GPU-bbbb"]
    assert (told["gpu_source"], told["gpu_problem"]) == ("nvml", None)
    assert told["gpus"][1]["limit_c"] == 70
    assert told["host"]["cores"] >= 1


def test_status_and_why_account_for_everything(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A, HOT)
    running = queue(bench, "--gpu-min-vram", "9000", "-n", "one", "--", "--mib", "8000")
    bench.worker("-p", "4", command=impatient(*QUICK))
    bench.wait_for_log(running, "allocated")
    waiting = queue(bench, "--gpu-min-vram", "16000", "-n", "two", "--", "--mib", "8000")
    wait_for_reason(bench, waiting, "needs 15.6 GiB")

    (rules_a, rules_b) = _why(bench, waiting)["rules"]
    assert rules_a["rule"] == "free VRAM"
    assert (rules_a["gpu_index"], rules_a["needed"], rules_a["present"]) == (0, 16_000, 24_000 - 9000)
    assert (rules_b["rule"], rules_b["gpu_index"]) == ("temperature", 1)
    assert (rules_b["needed"], rules_b["present"]) == (65, 82)
    words = bench.backprop("why", waiting).stdout
    assert (
        f"{waiting} two is queued: GPU 0: needs 15.6 GiB; 14.6 of 23.4 GiB free (8.8 reserved by runs)"
        in words
    )
    assert re.search(r"free VRAM +0 +16000 +15000 +[\d.]+m?s ", words)
    assert re.search(
        r"temperature +1 +65 +82 +[\d.]+m?s +GPU 1: too hot \(82 °C\); a run starts at 65 °C", words
    )

    gpu, hot = status(bench)["gpus"]
    assert gpu["promised_to"] == {running: 9000}
    assert (gpu["available_mib"], gpu["foreign_mib"], gpu["idle_because"]) == (15_000, 0, None)
    assert (hot["promised_to"], hot["foreign_mib"]) == ({}, 1000)
    assert (
        hot["idle_because"]
        == f"{waiting} is next: too hot (82 °C); a run starts at 65 °C or less (--gpu-max-temp)"
    )
    shown = bench.backprop("status").stdout
    assert f"GPU 1: idle: {hot['idle_because']}" in shown
    assert re.search(rf"{running} +one +running +1 +0 +8\.8 GiB +[\d:]+ left", shown)
    assert "segment 1" not in shown, "its number has a column"
    assert "\n  GPU 0: " not in shown, "what it has promised stands beside the run"
    assert "queue   1 queued, 1 running" in shown

    # Since when a rule fails is kept while its amount changes.
    since = rules_b["since"]
    driver.show(A, FakeGpu("GPU-bbbb", temp=79, used=1000, reserved=576, slowdown=70))
    wait_until(lambda: status(bench)["gpus"][1]["temp_c"] == 79)
    assert _why(bench, waiting)["rules"][1]["since"] == since


def test_who_holds_a_gpu_is_named(bench: Bench, driver: FakeDriver) -> None:
    """The waiting run's GPU is full of what somebody else runs; the running one is ours, and is not named."""
    driver.show(FakeGpu("GPU-aaaa", total=16_000))
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeps) as other:
        driver.occupy("GPU-aaaa", 9000, other.pid)
        running = queue(bench, "--gpu-min-vram", "2000", "--", "--mib", "1500")
        bench.worker("-p", "4", command=impatient(*QUICK))
        bench.wait_for_log(running, "allocated")
        waiting = queue(bench, "--gpu-min-vram", "12000", "-n", "two")
        wait_for_reason(bench, waiting, "needs 11.7 GiB")
        told = _why(bench, waiting)
        words = bench.backprop("why", waiting).stdout
        shown, (card,) = bench.backprop("status").stdout, status(bench)["gpus"]
        other.kill()
    name = f"{getpass.getuser()}, 8.8 GiB, 0 %"
    assert re.search(rf"GPU 0 is held by python\S* {other.pid}, {name}", words), words
    assert re.search(rf"GPU 0: held by python\S* {other.pid}, {name}", shown), shown
    assert [holder["pid"] for holder in card["holders"]] == [other.pid]
    (holder,) = told["gpu_holders"]
    assert (holder["gpu_index"], holder["pid"], holder["vram_mib"]) == (0, other.pid, 9000)
    assert (holder["utilisation_pct"], holder["known_as"]) == (0, None)


def test_status_watch_refreshes_until_ctrl_c(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    out = bench.home.parent / "watch.out"
    with out.open("w") as file:
        watching = subprocess.Popen(
            [COMMAND, "status", "--watch"], stdout=file, env=bench.environment, cwd=bench.project
        )
        try:
            wait_until(lambda: "61 °C" in out.read_text())
            driver.show(FakeGpu("GPU-aaaa", temp=47))
            wait_until(lambda: "47 °C" in out.read_text())
            assert watching.poll() is None
        finally:
            watching.send_signal(signal.SIGINT)
            code = watching.wait(timeout=30)
    assert code == 130


def test_why_of_runs_that_no_gpu_keeps_back(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    run = queue(bench, "--", "--mib", "1000", "--until", "go")
    assert "no worker is running. Start one" in bench.backprop("why", run).stdout
    assert status(bench)["gpus"][0]["idle_because"] == "no worker is running"
    bench.worker(command=impatient(*QUICK))
    bench.wait_for_log(run, "allocated")
    told = _why(bench, run)
    assert (told["state"], told["rules"], told["worker_alive"]) == ("running", [], True)
    (bench.project / "go").touch()
    begun_s = time.monotonic()
    wait_until(lambda: bench.state(run) == "completed")
    assert bench.backprop("why", run).stdout.strip() == f"{run} gpu_trainer is completed: exited 0"
    assert time.monotonic() - begun_s < 60


def _why(bench: Bench, run: str) -> dict[str, object]:
    done = bench.backprop("why", run, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
