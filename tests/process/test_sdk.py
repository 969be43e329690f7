"""`import backprop` in a training script: what it reports, inside and outside Backprop."""

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

import backprop
from tests.support.sdk_scripts import script


def lines(path: Path) -> list[dict[str, object]]:
    def no_constant(name: str) -> object:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constant) for line in path.read_text().splitlines() if line]


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("BACKPROP_EVENTS", str(path))
    return path


@pytest.fixture(params=["inside", "outside"])
def either_side(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "inside":
        monkeypatch.setenv("BACKPROP_EVENTS", str(tmp_path / "events.jsonl"))
    else:
        monkeypatch.delenv("BACKPROP_EVENTS", raising=False)


class Tensor:
    """A 0-d tensor, as torch and numpy have them."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


def test_importing_it_loads_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "backprop").symlink_to(Path(backprop.__file__).parent)
    code = (
        f"import sys, os; sys.path.insert(0, {str(tmp_path)!r}); before = set(sys.modules); import backprop;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["backprop", "backprop._events", "backprop._stop"]


def test_outside_backprop_nothing_happens(tmp_path: Path) -> None:
    code = """
import backprop, signal
backprop.log(step=1, loss=0.5, accuracy=0.9)
backprop.checkpoint("model.pt", step=1)
assert backprop.resume_from() is backprop.run_id() is backprop.segment() is backprop.deadline() is None
assert backprop.should_stop() is False
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    assert script(code, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_script_inside_backprop(tmp_path: Path) -> None:
    code = """
import backprop
print(backprop.run_id(), backprop.segment(), backprop.resume_from(), backprop.deadline())
backprop.log(step=7, loss=0.25, accuracy=1)
backprop.checkpoint("out/model é.pt", step=7)
backprop.checkpoint("/other.pt", seconds=1.23456)
"""
    printed = script(
        code,
        tmp_path,
        BACKPROP_RUN_ID="ab12",
        BACKPROP_SEGMENT="3",
        BACKPROP_RESUME_FROM="/data/ckpt 1.pt",
        BACKPROP_DEADLINE="1800000000.5",
        BACKPROP_EVENTS=str(tmp_path / "events.jsonl"),
    )
    assert printed == "ab12 3 /data/ckpt 1.pt 1800000000.5\n"
    assert lines(tmp_path / "events.jsonl") == [
        {"step": 7, "loss": 0.25, "metrics": {"accuracy": 1.0}},
        {"event": "checkpoint_saved", "path": f"{tmp_path}/out/model é.pt", "step": 7},
        {"event": "checkpoint_saved", "path": "/other.pt", "step": None, "seconds": 1.235},
    ]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf"])
def test_values_that_make_no_sense_are_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKPROP_DEADLINE", "BACKPROP_SEGMENT"):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BACKPROP_RESUME_FROM", "")
    monkeypatch.setenv("BACKPROP_RUN_ID", "")
    assert backprop.deadline() is backprop.segment() is backprop.resume_from() is backprop.run_id() is None


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        ({}, {"step": None, "loss": None}),
        ({"step": 3}, {"step": 3, "loss": None}),
        ({"step": 2**63 - 1, "loss": 2}, {"step": 2**63 - 1, "loss": 2.0}),
        (
            {"step": Tensor(4), "loss": Tensor(0.5), "f1": Tensor(1)},
            {"step": 4, "loss": 0.5, "metrics": {"f1": 1.0}},
        ),
        ({"loss": float("nan")}, {"step": None, "loss": None, "nonfinite": True}),
        ({"loss": Tensor(float("-inf"))}, {"step": None, "loss": None, "nonfinite": True}),
        ({"loss": 10**400}, {"step": None, "loss": None, "nonfinite": True}),
        ({"loss": 1, "a": float("inf"), "b": 2}, {"step": None, "loss": 1.0, "metrics": {"b": 2.0}}),
        ({"loss": 1, "a": float("nan")}, {"step": None, "loss": 1.0}),
        ({"loss": 1} | {f"metric_{i}": i for i in range(300)}, {"step": None, "loss": 1.0}),
    ],
)
def test_log_writes_valid_json(events: Path, arguments: dict[str, object], event: dict[str, object]) -> None:
    backprop.log(**arguments)  # pyright: ignore[reportArgumentType]
    assert lines(events) == [event]
    assert events.stat().st_size <= 4096


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize(
    "wrong", ["0.5", True, [0.5], {}, Tensor("0.5"), Tensor(None), Tensor(True), 1j, object()]
)
def test_log_refuses_what_is_no_number(wrong: object) -> None:
    for name in ("step", "loss", "accuracy"):
        with pytest.raises(TypeError, match=name if name != "step" else "whole number"):
            backprop.log(**{name: wrong})  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("either_side")
def test_a_step_is_a_whole_number_from_zero() -> None:
    for step in (1.0, Tensor(1.0)):
        with pytest.raises(TypeError, match="whole number"):
            backprop.log(step=step)  # pyright: ignore[reportArgumentType]
    for step in (-1, 2**63, Tensor(-1)):
        with pytest.raises(ValueError, match=r"between 0 and 2\*\*63-1"):
            backprop.checkpoint("model.pt", step=step)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize(
    ("path", "error"),
    [
        (None, TypeError),
        (3, TypeError),
        (b"model.pt", TypeError),
        ("", ValueError),
        ("a\0b", ValueError),
        ("not-utf8-\udcff", ValueError),
        ("long/" * 1000, ValueError),
    ],
)
def test_checkpoint_refuses_what_cannot_be_a_path(path: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"path|Path"):
        backprop.checkpoint(path)  # pyright: ignore[reportArgumentType]


def test_a_refused_call_writes_nothing(events: Path) -> None:
    with pytest.raises(TypeError):
        backprop.log(step=1, loss=0.5, accuracy="high")  # pyright: ignore[reportArgumentType]
    assert not events.exists()


def test_a_relative_path_is_taken_from_the_current_folder_without_dropping_dots(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backprop.checkpoint(PurePosixPath("link/../model.pt"))
    backprop.checkpoint("/else/where")
    assert [event["path"] for event in lines(events)] == [f"{tmp_path}/link/../model.pt", "/else/where"]


@pytest.mark.usefixtures("either_side")
def test_a_folder_whose_name_is_not_utf8_cannot_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "odd-\udcff"
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(ValueError, match="is not UTF-8"):
        backprop.checkpoint("model.pt")


@pytest.mark.parametrize("target", ["/dev/full", "/nowhere/events.jsonl", "/", "/proc/version"])
def test_an_event_that_cannot_be_written_is_dropped(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_EVENTS", target)
    backprop.log(step=1, loss=0.5)
    backprop.checkpoint("model.pt")


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path) -> None:
    # The file size limit stands for the disk: the kernel writes what fits, then refuses.
    code = """
import backprop, resource
backprop.log(step=1, loss=0.5)
for limit in (50, 50, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    backprop.log(step=2, loss=0.25)
"""
    events = tmp_path / "events.jsonl"
    script(code, tmp_path, BACKPROP_EVENTS=str(events))
    first, cut, last = events.read_text().splitlines()
    assert json.loads(first) == {"step": 1, "loss": 0.5}
    assert json.loads(last) == {"step": 2, "loss": 0.25}
    assert len(first) + 1 + len(cut) == 50


def test_it_survives_a_script_that_closes_all_files_and_loses_its_folder(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = """
import backprop, os
backprop.log(step=1)
os.closerange(3, 64)
backprop.log(step=2)
os.rmdir(os.getcwd())
backprop.checkpoint("model.pt")
"""
    script(code, tmp_path / "gone", BACKPROP_EVENTS=str(tmp_path / "events.jsonl"))
    assert [event["step"] for event in lines(tmp_path / "events.jsonl")] == [1, 2, None]


def test_lines_of_several_ranks_do_not_mix(events: Path) -> None:
    code = "import backprop\nfor step in range(300): backprop.log(step=step, loss=0.5, " + "a" * 1500 + "=1)"
    ranks = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [rank.wait(timeout=30) for rank in ranks] == [0, 0, 0]
    written = lines(events)
    assert len(written) == 900
    for step in range(300):
        assert written.count({"step": step, "loss": 0.5, "metrics": {"a" * 1500: 1.0}}) == 3
