"""Which of our runs uses how much of a GPU: the driver's list of processes against our trees."""

import os
from pathlib import Path

import pytest

from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot
from backprop.scheduler.records import SegmentRecord
from backprop.worker.machine.gpu_usage import processes_of, usage_of

HERE = os.getpid()
PARENT = os.getppid()
NOT_HERE = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
"""No process has it: as the pids of a host look from inside a container."""


class Trees:
    """Stands for the executor, as far as `processes_of` asks it."""

    def __init__(self, **trees: set[int]) -> None:
        self.trees = trees
        self.looks = 0

    def pids(self, run_id: str, number: int) -> frozenset[int]:
        self.looks += 1
        return frozenset(self.trees.get(run_id, ()))


def segment(run_id: str, *gpu_uuids: str) -> SegmentRecord:
    return SegmentRecord(
        run_id=run_id,
        number=1,
        worker="w",
        started_at_s=0.0,
        ended_at_s=None,
        outcome=None,
        reason=None,
        exit_code=None,
        signal_name=None,
        running_s=None,
        checkpoint_used=None,
        gpu_uuids=gpu_uuids,
        promised_mib=6000,
        need_source="declared",
        exclusive=False,
        peak_mib=None,
        steps_from=None,
        first_output_s=None,
        first_step=None,
        cut_cost_s=None,
        log_offset=0,
        events_offset=0,
        bad_events=0,
    )


def machine(*gpus: Gpu) -> Snapshot:
    return Snapshot(Host(1, 1, 0.0, 1, 1), gpus, "nvml", None, 0.0)


def gpu(*by_pid: tuple[int, int | None], uuid: str = "GPU-0", used_mib: int = 9000, **values: object) -> Gpu:
    fields: dict[str, object] = {
        "uuid": uuid,
        "index": 0,
        "name": "GPU",
        "total_mib": 24_000,
        "free_mib": 24_000 - used_mib,
        "temp_c": 50,
        "slowdown_c": 90,
        "throttled": False,
        "utilisation_pct": 0,
        "used_by_pid": by_pid,
    }
    return Gpu(**(fields | values))


def use(seen: Gpu, tree: set[int]) -> int | None:
    """What run `a`, with the processes `tree`, uses on the GPU."""
    place = Trees(a=tree)
    segments = [segment("a", "GPU-0")]
    processes = processes_of(segments, machine(seen), place)
    return usage_of(segments, machine(seen), processes)["a", "GPU-0"]


def test_all_processes_of_a_run_count_and_no_others() -> None:
    assert use(gpu((HERE, 3000), (PARENT, 2000)), {HERE}) == 3000
    assert use(gpu((HERE, 3000), (PARENT, 2000)), {HERE, PARENT}) == 5000


def test_a_run_that_is_not_on_the_list_yet_uses_nothing() -> None:
    assert use(gpu((PARENT, 2000)), {HERE}) == 0


@pytest.mark.parametrize(
    ("seen", "tree"),
    [
        (gpu((HERE, None)), {HERE}),
        (gpu((HERE, 3000), (PARENT, None)), {HERE, PARENT}),
        (gpu((NOT_HERE, 3000)), {HERE}),
        (gpu((PARENT, 3000), (NOT_HERE, 3000)), {HERE}),
        (gpu(used_mib=9000), {HERE}),
        (gpu(free_mib=None), {HERE}),
        (gpu((HERE, 3000), error="GPU is lost"), {HERE}),
        (gpu((HERE, 3000), uuid="GPU-1"), {HERE}),
    ],
    ids=[
        "amounts untold",
        "one amount untold",
        "another namespace's pids",
        "pids of ours and of another namespace",
        "in use, by nobody listed",
        "memory unknown",
        "lost",
        "not in the picture",
    ],
)
def test_what_cannot_be_told_is_none(seen: Gpu, tree: set[int]) -> None:
    assert use(seen, tree) is None


def test_an_empty_list_is_believed_on_an_idle_gpu() -> None:
    assert use(gpu(used_mib=800), {HERE}) == 0
    assert use(gpu(used_mib=1500, reserved_mib=600), {HERE}) == 0
    assert use(gpu(used_mib=1500), {HERE}) is None


def test_a_run_on_two_gpus_is_told_apart_on_each() -> None:
    seen = machine(gpu((HERE, 3000)), gpu((HERE, 2000), uuid="GPU-1"))
    place = Trees(a={HERE}, b={PARENT})
    segments = [segment("a", "GPU-0", "GPU-1"), segment("b", "GPU-1"), segment("c")]
    assert usage_of(segments, seen, processes_of(segments, seen, place)) == {
        ("a", "GPU-0"): 3000,
        ("a", "GPU-1"): 2000,
        ("b", "GPU-1"): 0,
    }


def test_processes_are_looked_up_once_a_run_and_only_where_a_driver_lists_any() -> None:
    place = Trees(a={HERE}, b={PARENT})
    seen = machine(gpu((HERE, 3000)), gpu((HERE, 2000), uuid="GPU-1"), gpu(uuid="GPU-2", used_mib=0))
    segments = [segment("a", "GPU-0", "GPU-1"), segment("b", "GPU-2"), segment("c")]
    assert processes_of(segments, seen, place) == {"a": frozenset({HERE})}
    assert place.looks == 1
