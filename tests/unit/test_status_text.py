"""`status` says each thing once, however many GPUs and runs share it."""

from pathlib import Path

from backprop.cli.render.machine_view import NO_WORKER, GpuView, Overview
from backprop.cli.render.status_text import gpu_notes
from backprop.scheduler.home.layout import Home
from tests.support.governor_cases import gpu, machine


def shown(*notes: str | None, closed: str | None = None) -> Overview:
    views = [
        GpuView(gpu(index), None, {} if idle else {"r1": 2048}, 85, None, idle)
        for index, idle in enumerate(notes)
    ]
    return Overview(Home(Path("/home")), machine(), views, [], {}, [], [], [], closed=closed)


def test_a_reason_that_gpus_share_is_one_line() -> None:
    full = "r9 is next: waiting for a slot (5 of 5 busy)"
    hot = "r9 is next: too hot (90 °C)"
    assert gpu_notes(shown(None, full, hot, full, full)) == [
        f"GPUs 1, 3, 4: idle: {full}",
        f"GPU 2: idle: {hot}",
    ]


def test_what_the_head_says_is_not_said_of_each_gpu() -> None:
    assert gpu_notes(shown(NO_WORKER, NO_WORKER)) == []
    closed = "the queue is drained (a driver)"
    assert gpu_notes(shown(f"r9 is next: {closed}", closed=closed)) == []
    assert gpu_notes(shown("r9 is next: too hot", closed=closed)) == ["GPU 0: idle: r9 is next: too hot"]
