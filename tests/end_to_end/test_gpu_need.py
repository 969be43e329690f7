"""How much memory is reserved for a run? What it declares, else what its script was seen to use, else a default."""

from tests.support.fake_gpus import (
    QUICK,
    given,
    impatient,
    peak_mib,
    queue,
    reason,
    wait_for_reason,
    wait_for_state,
)
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import Bench, wait_until


def vram_line(bench: Bench, run: str) -> str:
    """What `show` says of the run's memory."""
    return next(line for line in bench.backprop("show", run).stdout.splitlines() if line.startswith("VRAM"))


def test_a_script_is_known_by_what_it_used_before(bench: Bench, driver: FakeDriver) -> None:
    driver.show(FakeGpu("GPU-aaaa"))
    first = queue(bench, "--", "--mib", "9000", "--until", "go")
    assert "needs 2.4 GiB of a GPU (default, until its use is known)" in vram_line(bench, first)
    bench.worker("-p", "8", command=impatient(*QUICK))
    wait_until(lambda: bench.state(first) == "running" and peak_mib(bench, first) == 9000, timeout_s=60)
    assert vram_line(bench, first).endswith("reserved 2.4 GiB (default); peak 8.8 GiB")
    (bench.project / "go").touch()
    wait_for_state(bench, first, "completed")

    # Three times 9000 would fit nowhere; with the default they would all have been started.
    (bench.project / "go").unlink()
    later = [queue(bench, "--", "--mib", "9000", "--until", "go") for _ in range(3)]
    third = later[2]
    told = wait_for_reason(bench, third, "(learned)")
    assert "needs 9.7 GiB (learned)" in told
    segment = bench.show(later[0])["segments"][0]
    assert (segment["need_source"], segment["promised_mib"]) == ("learned", 9900)
    assert "reserved 9.7 GiB (learned)" in vram_line(bench, later[0])

    # A declaration stands above what is known; another script is not known.
    other = bench.script("other.py", "import time; time.sleep(600)")
    declared = queue(bench, "--gpu-min-vram", "1000", "--", "--mib", "800", "--until", "go")
    unknown = queue(bench, script=other)
    for run, source in ((declared, "declared"), (unknown, "default")):
        wait_for_state(bench, run, "running")
        assert bench.show(run)["segments"][0]["need_source"] == source
    for run in later[:2]:
        bench.wait_for_log(run, "allocated")
    (bench.project / "go").touch()
    bench.wait_for_log(third, "allocated")


def test_show_says_when_a_declaration_was_far_off(bench: Bench, driver: FakeDriver) -> None:
    driver.show(FakeGpu("GPU-aaaa", total=81_920))
    much = queue(bench, "-g", "20", "--", "--mib", "3000", "--until", "go")
    little = queue(bench, "--gpu-min-vram", "3000", "--", "--mib", "5000", "--until", "go")
    right = queue(bench, "-g", "5", "--", "--mib", "4900", "--until", "go")
    runs = {much: 3000, little: 5000, right: 4900}
    assert vram_line(bench, much).endswith("needs 20 of a GPU (declared)")
    bench.worker("-p", "8", command=impatient(*QUICK))
    for run, peak in runs.items():
        wait_for_state(bench, run, "running")
        wait_until(lambda run=run, peak=peak: peak_mib(bench, run) == peak, timeout_s=60)
    (bench.project / "go").touch()
    for run in runs:
        wait_for_state(bench, run, "completed")
    assert vram_line(bench, much).endswith(
        "reserved 20 GiB (declared); peak 2.9 GiB, far less than declared:"
        " declare less to let more runs share a GPU"
    )
    assert vram_line(bench, little).endswith("peak 4.9 GiB, more than declared: declare more")
    assert vram_line(bench, right).endswith("reserved 5 GiB (declared); peak 4.8 GiB")


def test_use_beyond_the_promise_counts_in_full(bench: Bench, driver: FakeDriver) -> None:
    """Without a limit nobody ends a run that uses more than it said; but nobody else is let into that memory."""
    driver.show(FakeGpu("GPU-aaaa"))
    big = queue(bench, "--gpu-min-vram", "3000", "--", "--mib", "18000")
    bench.worker("-p", "8", command=impatient(*QUICK))
    wait_until(lambda: bench.state(big) == "running" and peak_mib(bench, big) == 18_000, timeout_s=60)
    other = queue(bench, "--gpu-min-vram", "8000", "--", "--mib", "8000")
    told = wait_for_reason(bench, other, "needs 7.8 GiB")
    assert "needs 7.8 GiB; 6.4 of 24 GiB free (17.6 reserved by runs)" in told
    assert bench.state(big) == "running"
    assert bench.backprop("stop", big).returncode == 0
    assert given(bench, other) == ["GPU-aaaa"], reason(bench, other)
