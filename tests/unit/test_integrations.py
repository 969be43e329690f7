"""What of `backprop.integrations` shows without any framework; the callbacks themselves: tests/frameworks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backprop.integrations import _saving
from backprop.integrations._framework import framework

CALLBACKS = {"lightning": "lightning", "transformers": "transformers", "keras": "keras"}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_missing_framework_is_named_with_what_to_install(name: str) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('lightning', 'pytorch_lightning', 'transformers', 'keras')));"
        f"import backprop.integrations.{name}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"pip install {CALLBACKS[name]}" in done.stderr.splitlines()[-1]


def test_what_a_framework_itself_misses_is_not_taken_for_its_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        framework("half_installed", install="half-installed")


def test_the_copy_of_lightning_that_is_in_use_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one_copy", "another_copy"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    assert framework("one_copy", "another_copy", install="either").__name__ == "one_copy"
    sys.modules.pop("one_copy")
    framework("another_copy", install="either")
    assert framework("one_copy", "another_copy", install="either").__name__ == "another_copy"
    sys.modules.pop("another_copy")


def test_neither_backprop_nor_the_package_imports_a_framework() -> None:
    code = (
        "import sys, backprop, backprop.integrations;"
        "print([name for name in ('torch', 'lightning', 'pytorch_lightning', 'transformers', 'keras', 'numpy')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_two_runs_in_one_directory_save_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []
    for run in ("11111111", "22222222"):
        monkeypatch.setenv("BACKPROP_RUN_ID", run)
        folders.append(_saving.folder_of_run(tmp_path))

    assert folders[0] != folders[1]


def test_the_newest_by_time_stay_and_nothing_else_is_touched(tmp_path: Path) -> None:
    for age_s, name in enumerate(("step=5.ckpt", "step=900.ckpt", "step=40.ckpt", "mine.ckpt")):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000 - age_s, 1000 - age_s))
    folder = tmp_path / "step=7.ckpt"  # a sharded one
    folder.mkdir()
    (folder / "shard").write_text("1")
    os.utime(folder, (10, 10))

    _saving.keep_newest(tmp_path, "step=*.ckpt", 2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.ckpt", "step=5.ckpt", "step=900.ckpt"]
    _saving.keep_newest(tmp_path, "step=*.ckpt", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.ckpt", "step=5.ckpt"]


def test_a_checkpoint_is_announced_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("BACKPROP_EVENTS", str(events))
    (tmp_path / "step-3").mkdir()
    (tmp_path / "step-3" / "weights").write_text("1")

    _saving.announce(tmp_path / "step-3", 3)
    _saving.announce(tmp_path / "gone", 4)

    assert events.read_text().count("checkpoint_saved") == 1
    assert f'"{tmp_path}/step-3"' in events.read_text()


@pytest.mark.parametrize(("text", "asked_for"), [("0.01", True), ("", False), ("0", False), ("soon", False)])
def test_checkpoints_in_between_are_saved_as_often_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, text: str, asked_for: bool
) -> None:
    monkeypatch.setenv("BACKPROP_CHECKPOINT_EVERY_SECONDS", text)
    interval = _saving.Interval()
    interval.begin()
    time.sleep(0.02)

    assert interval.asked_for == asked_for
    assert interval.is_over() == asked_for
