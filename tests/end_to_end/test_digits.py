"""The digits example, run as a real process: however it is interrupted, it ends with the same weights."""

import hashlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.harness import ROOT

SCRIPT = ROOT / "examples" / "digits.py"
EPOCHS = 3
STOPPED = 75


def command(out: Path, *arguments: str, epochs: int = EPOCHS) -> list[str]:
    # -I -S: no site-packages, so the script cannot depend on anything installed.
    return [sys.executable, "-I", "-S", str(SCRIPT), "--out", str(out), "--epochs", str(epochs), *arguments]


def run(out: Path, *arguments: str, epochs: int = EPOCHS) -> subprocess.CompletedProcess[str]:
    full = command(out, *arguments, epochs=epochs)
    return subprocess.run(full, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def started(out: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command(out, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], wanted: Callable[[dict[str, object]], bool]) -> None:
    assert process.stdout
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("{") and wanted(json.loads(line)):
            return
    raise AssertionError(
        f"ended before the awaited line; printed {seen}, {process.stderr and process.stderr.read()}"
    )


def newest(out: Path) -> Path | None:
    found = sorted(out.glob("ckpt-*.json"), key=lambda path: int(path.stem[5:]))
    return found[-1] if found else None


def assert_whole(out: Path) -> None:
    for path in out.glob("*.json"):
        json.loads(path.read_text())


def finish(out: Path) -> bytes:
    """The weights after resuming from what is in `out`, or after starting afresh if nothing is."""
    last = newest(out)
    done = run(out, *(["--resume-from", str(last)] if last else []))
    assert done.returncode == 0, done.stderr
    return (out / "weights.json").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("uninterrupted")
    done = run(out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_example", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclass() looks its module up there
    spec.loader.exec_module(module)
    return module


def test_stopped_four_times_it_computes_the_same(reference: Path, tmp_path: Path) -> None:
    moments: list[Callable[[dict[str, object]], bool]] = [
        lambda line: line.get("step") == 10,  # inside the first epoch
        lambda line: "event" in line,  # right after an epoch's checkpoint
        lambda line: "loss" in line,  # soon after a resume
        lambda line: "event" in line and line["step"] == 94,
    ]
    for stop, moment in zip(
        [signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT], moments, strict=True
    ):
        last = newest(tmp_path)
        with started(tmp_path, *(["--resume-from", str(last)] if last else [])) as process:
            read_until(process, moment)
            process.send_signal(stop)
            printed, talk = process.communicate(timeout=30)
        assert process.returncode == STOPPED, talk
        assert "as asked" in talk
        saved = newest(tmp_path)
        assert saved and saved != last
        events = [json.loads(line) for line in printed.splitlines() if "checkpoint_saved" in line]
        step = int(saved.stem[5:])
        assert not events or events[-1] == {"event": "checkpoint_saved", "path": str(saved), "step": step}
        assert not (tmp_path / "weights.json").exists()
    assert finish(tmp_path) == (reference / "weights.json").read_bytes()
    assert len(list(tmp_path.glob("ckpt-*.json"))) == 2
    assert not (tmp_path / ".unfinished").exists()


def test_a_signal_at_any_moment_of_the_start_leaves_only_whole_files(reference: Path, tmp_path: Path) -> None:
    for delay_ms in (0, 10, 20, 30, 40, 60, 80, 100, 130, 160, 200, 300):
        last = newest(tmp_path)
        with started(tmp_path, *(["--resume-from", str(last)] if last else [])) as process:
            time.sleep(delay_ms / 1000)  # a sweep: what follows must hold wherever the signal falls
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        assert_whole(tmp_path)
        if process.returncode == 0:  # a sleep that overran let the training end before the signal
            break
    assert finish(tmp_path) == (reference / "weights.json").read_bytes()


def test_killed_while_it_saves(reference: Path, tmp_path: Path) -> None:
    for _ in range(3):
        last = newest(tmp_path)
        (tmp_path / ".unfinished").unlink(missing_ok=True)
        before = set(tmp_path.iterdir())
        with started(tmp_path, *(["--resume-from", str(last)] if last else [])) as process:
            # A new name is a file being written. Polled without a pause: it is for a few milliseconds.
            while set(tmp_path.iterdir()) == before and process.poll() is None:
                pass
            process.kill()
            process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        assert_whole(tmp_path)
    assert finish(tmp_path) == (reference / "weights.json").read_bytes()


def test_killed_between_checkpoints(reference: Path, tmp_path: Path) -> None:
    with started(tmp_path) as process:
        read_until(process, lambda line: line["step"] == 60)
        process.kill()
    last = newest(tmp_path)
    assert last and last.name == "ckpt-47.json"
    assert finish(tmp_path) == (reference / "weights.json").read_bytes()


def test_asked_before_the_first_batch_it_saves_nothing(digits: ModuleType, tmp_path: Path) -> None:
    settings = digits.Settings(seed=1, hidden=4, lr=0.05, epochs=1)
    training, _ = digits.load_images()
    state = digits.fresh_state(settings, len(training))
    assert digits.train(settings, state, training, tmp_path, [signal.SIGINT]) is False
    assert list(tmp_path.iterdir()) == []


def test_a_finished_training_resumes_to_its_end_at_once(reference: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--resume-from", str(newest(reference)))
    assert done.returncode == 0
    assert (tmp_path / "weights.json").read_bytes() == (reference / "weights.json").read_bytes()
    assert list(tmp_path.glob("ckpt-*")) == []


def test_epochs_may_be_added(reference: Path, tmp_path: Path) -> None:
    assert run(tmp_path, epochs=1).returncode == 0
    assert finish(tmp_path) == (reference / "weights.json").read_bytes()


def test_it_learns_to_read_digits(reference: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--resume-from", str(newest(reference)), epochs=8)
    assert done.returncode == 0
    *_, progress, result = done.stdout.splitlines()
    found = re.fullmatch(r"accuracy (0\.\d{3})", result)
    assert found and float(found[1]) > 0.92
    last = json.loads(progress)
    assert last["step"] == 8 * 47 and last["loss"] < 0.3
    assert last["metrics"]["accuracy"] == pytest.approx(float(found[1]), abs=0.001)


@pytest.mark.parametrize("other", [("--seed", "2"), ("--hidden", "16"), ("--lr", "0.01"), ("--epochs", "2")])
def test_a_checkpoint_of_another_training_is_refused(
    reference: Path, tmp_path: Path, other: tuple[str, str]
) -> None:
    done = run(tmp_path, "--resume-from", str(newest(reference)), *other)
    assert done.returncode == 2
    assert f"was made with {other[0]}" in done.stderr and f"not {other[1]}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", '{"format": "digits-check', "[]", '{"format": "other"}', '{"a": 1}', "\xff"]
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    damaged = tmp_path / "ckpt-1.json"
    damaged.write_text(text, encoding="latin-1")
    done = run(tmp_path / "out", "--resume-from", str(damaged))
    assert done.returncode == 2
    assert str(damaged) in done.stderr and "Traceback" not in done.stderr


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--resume-from", str(tmp_path / "gone.json"))
    assert done.returncode == 2 and "gone.json" in done.stderr


def test_a_loss_that_diverges_is_no_checkpoint(tmp_path: Path) -> None:
    done = run(tmp_path, "--lr", "1e200")
    assert done.returncode == 1
    assert "try a smaller --lr" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_data_is_the_file_its_readme_describes(digits: ModuleType) -> None:
    readme = (digits.DATA.parent / "README.md").read_text()
    assert hashlib.sha256(digits.DATA.read_bytes()).hexdigest() in readme
    training, held_out = digits.load_images()
    assert (len(training), len(held_out)) == (1498, 299)
