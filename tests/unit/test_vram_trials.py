"""VRAM is moved only by a driver that was seen to do it, and one that took the machine down is never tried again."""

import os
from pathlib import Path

import pytest

from backprop.scheduler.home.layout import Home
from backprop.worker.executor.vram import trials
from backprop.worker.supervisor import process_tree

GPU, DRIVER = "GPU-aaaa", "580.159.04"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_pass_counts_for_this_gpu_driver_and_user(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    why = trials.why_not(home, GPU, DRIVER)
    assert why is not None and "run `backprop doctor --suspend-test` once, at an idle moment" in why
    trials.begin(home, GPU, DRIVER)
    trials.end(home, GPU, DRIVER, True, "went and came")
    assert trials.why_not(home, GPU, DRIVER) is None
    for gpu, driver in (("GPU-bbbb", DRIVER), (GPU, "580.200")):
        assert trials.why_not(home, gpu, driver) is not None
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    assert trials.why_not(home, GPU, DRIVER) is not None
    monkeypatch.undo()
    trials.end(home, GPU, DRIVER, False, "it refused")
    assert trials.why_not(home, GPU, DRIVER) == "it failed its test: it refused"


def test_what_is_known_of_this_machine_without_asking_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NVIDIA", "AMD"):
        monkeypatch.setattr(trials, name, str(tmp_path / name))
    assert trials.words_of_start(home) == "", "no GPU is here"
    (tmp_path / "AMD").touch()
    assert trials.words_of_start(home) == "it is moved on NVIDIA GPUs alone"
    (tmp_path / "NVIDIA").touch()
    assert trials.words_of_start(home) == "not moved before `backprop doctor --suspend-test` has passed"
    trials.end(home, GPU, DRIVER, False, "it refused")
    assert trials.words_of_start(home) == "it failed its test"
    trials.end(home, GPU, DRIVER, True, "went and came")
    assert trials.words_of_start(home) == ""


def test_a_driver_that_took_the_machine_down_is_never_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.begin(home, GPU, DRIVER)
    assert trials.why_never(home, GPU, DRIVER) is None, "this boot: the test itself was ended"
    monkeypatch.setattr(process_tree, "boot_id", lambda: "the next")
    monkeypatch.setattr(trials, "NVIDIA", os.devnull)
    assert trials.words_of_start(home) == "the machine went down while its driver was tried"
    assert (
        trials.why_never(home, "GPU-bbbb", DRIVER) == f"the machine went down while driver {DRIVER} was tried"
    )
    assert trials.why_never(home, GPU, "581.1") is None
    monkeypatch.undo()
    trials.call_off(home, GPU, DRIVER)
    monkeypatch.setattr(process_tree, "boot_id", lambda: "the next")
    assert trials.why_never(home, GPU, DRIVER) is None


@pytest.mark.parametrize(
    ("gpu", "driver", "word"),
    [
        (GPU, None, "cannot be read"),
        ("MIG-a", DRIVER, "MIG"),
        (GPU, "570.86", "too old"),
        (GPU, "565.1", "too old"),
        (GPU, "nonsense", "too old"),
        (GPU, "595.71.05", "hang the machine"),
        (GPU, "610.57.04", "end the process"),
    ],
)
def test_what_is_known_to_do_harm_is_not_even_tried(
    home: Home, gpu: str, driver: str | None, word: str
) -> None:
    assert word in (trials.why_never(home, gpu, driver) or "")


@pytest.mark.parametrize("content", ["", "{", '{"ended": 3}'])
def test_a_file_that_cannot_be_understood_proves_nothing(home: Home, content: str) -> None:
    home.vram_trials.write_text(content)
    assert trials.why_not(home, GPU, DRIVER) is not None
    trials.begin(home, GPU, DRIVER)
    trials.end(home, GPU, DRIVER, True, "")
    assert trials.why_not(home, GPU, DRIVER) is None
