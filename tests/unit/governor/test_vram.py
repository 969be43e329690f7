"""Other people's memory on a card: for how long does the most they had still count?"""

from backprop.scheduler.governor.decide import Need, Reservation, decide
from backprop.scheduler.governor.vram import PEAK_HOLD_S, ForeignPeak, hold_peaks
from tests.support.governor_cases import GIB, LIMITS, NEED, gpu, machine, promise


def peaks_after(
    *readings: tuple[float, int, tuple[int, ...]], ours: tuple[Reservation, ...] = ()
) -> ForeignPeak:
    """Feed (time, used GiB, pids) of one card of 24 GiB."""
    peaks: dict[str, ForeignPeak] = {}
    for now_s, used_gib, pids in readings:
        card = gpu(free=(24 - used_gib) * GIB, used_by_pid=tuple((pid, None) for pid in pids))
        peaks = hold_peaks(peaks, machine(card), ours, now_s)
    return peaks["GPU-0"]


def steady(start_s: int, end_s: int, used_gib: int, *pids: int) -> list[tuple[float, int, tuple[int, ...]]]:
    return [(float(now_s), used_gib, pids) for now_s in range(start_s, end_s, 2)]


def test_a_pause_in_somebodys_job_is_not_free_space() -> None:
    busy, paused = steady(0, 30, 18, 42), steady(30, 60, 2, 42)
    peak = peaks_after(*busy, *paused)
    assert peak.held_mib == 18 * GIB
    card = gpu(free=22 * GIB)
    decision = decide(NEED, LIMITS, machine(card), (), 0, peaks={"GPU-0": peak})
    assert decision.admitted
    assert decide(Need(vram_mib=7 * GIB), LIMITS, machine(card), (), 0, peaks={"GPU-0": peak}).sentence() == (
        "GPU 0: needs 7 GiB (default); 6 of 24 GiB free (18 lately used by other programs)"
    )


def test_a_peak_is_forgotten_in_time() -> None:
    hold = int(PEAK_HOLD_S)
    assert peaks_after(*steady(0, 30, 18, 42), *steady(30, hold, 2, 42)).held_mib == 18 * GIB
    assert peaks_after(*steady(0, 30, 18, 42), *steady(30, 2 * hold, 2, 42)).held_mib == 2 * GIB


def test_a_peak_goes_with_its_process() -> None:
    assert peaks_after(*steady(0, 30, 18, 42), *steady(30, 34, 0)).held_mib == 0
    assert peaks_after(*steady(0, 30, 18, 42, 43), *steady(30, 34, 3, 43)).held_mib == 18 * GIB


def test_the_last_seconds_of_a_run_are_no_foreign_peak() -> None:
    """Its promise is gone, its memory not yet."""
    assert peaks_after(*steady(0, 30, 0), *steady(30, 36, 12), *steady(36, 40, 0)).held_mib == 0


def test_our_own_use_is_no_foreign_peak() -> None:
    ours = (promise("a", 12 * GIB, 10 * GIB),)
    assert peaks_after(*steady(0, 60, 10), ours=ours).held_mib == 0
    assert peaks_after(*steady(0, 60, 14), ours=ours).held_mib == 4 * GIB
    untold = (promise("a", 12 * GIB, None),)
    assert peaks_after(*steady(0, 60, 10), ours=untold).held_mib == 0
    assert peaks_after(*steady(0, 60, 14), ours=untold).held_mib == 2 * GIB


def test_peaks_survive_a_reading_that_failed() -> None:
    peak = peaks_after(*steady(0, 30, 18, 42))
    lost = machine(gpu(error="lost"))
    assert hold_peaks({"GPU-0": peak}, lost, (), 40.0) == {"GPU-0": peak}
