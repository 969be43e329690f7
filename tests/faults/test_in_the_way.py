"""A FIFO, a device, a socket or a link that leads nowhere, under the name of a file of ours: nobody waits for it."""

import ast
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from backprop.scheduler.home import run_folder
from backprop.worker.checkpoints import copying, fingerprint, formats
from backprop.worker.checkpoints.resume import takes_resume_from
from backprop.worker.executor import segment_files
from backprop.worker.maintenance import log_archive
from tests.support.harness import ROOT, Bench, wait_until

WRITERS = ("scheduler/home", "worker/executor", "worker/supervisor", "worker/maintenance", "worker/environment",
           "worker/checkpoints")  # fmt: skip
"""The packages that name files in a run's folder."""
NAME = re.compile(r"log|[a-z_]+\.(json|jsonl|log|lock|gz|part)")
WAITS = "#!/bin/sh\necho up\nwhile [ ! -e go ]; do sleep 1; done\n"


def our_names() -> list[str]:
    """Return every name that the product gives a file in a run's folder, and that of its draft."""
    names = {
        node.value
        for package in WRITERS
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value)
    }
    assert {"spec.json", "exit.json", "log", "log.gz", "run.lock", "outcome.json", "code.json"} <= names
    return sorted({*names, *(f"{name}.tmp" for name in names if name.endswith(".json"))})


def plant(folder: Path, name: str) -> None:
    """Put FIFOs where the run's files of this name are, or may come to be."""
    for place in (folder, folder / "1", folder / "2"):
        place.mkdir(mode=0o700, exist_ok=True)
        (place / name).unlink(missing_ok=True)
        os.mkfifo(place / name)


def commands_return(bench: Bench, run: str) -> None:
    for words in (("list",), ("show", run), ("why", run), ("status",), ("logs", run), ("doctor",)):
        done = bench.backprop(*words, timeout_s=30)
        assert "Traceback" not in done.stderr, (words, done.stderr)


def test_a_fifo_under_any_name_of_ours_blocks_neither_worker_nor_command(bench: Bench) -> None:
    names = our_names()
    script = bench.script("wait.sh", WAITS)
    script.chmod(0o755)
    limits = ("--grace-seconds", "1", "--min-free-ram", "0", "--max-cpu-load", "1000", "--gpu-probe", "none")
    done = bench.backprop("run", "-q", "--array", f"1-{len(names)}", *limits, "./wait.sh")
    assert done.returncode == 0, done.stderr
    first = bench.worker("-p", str(len(names) + 2))
    runs = [one["id"] for one in bench.runs()]
    for run in runs:
        bench.wait_for_log(run, "up")
    for run, name in zip(runs, names, strict=True):
        plant(bench.home / "runs" / run, name)
    bench.script("quick.sh", "#!/bin/sh\necho quick\n").chmod(0o755)
    quick = bench.queue("-n", "quick", "./quick.sh")
    bench.wait_for(quick, "completed")
    commands_return(bench, runs[names.index("log")])
    first.kill()
    first.wait()
    second = bench.worker("-p", str(len(names) + 2))
    wait_until(lambda: bench.output(1).count("adopted") >= len(names), saw=lambda: bench.output(1))
    quick = bench.queue("-n", "quick", "./quick.sh")
    bench.wait_for(quick, "completed")
    (bench.project / "go").touch()
    wait_until(
        lambda: set(bench.states()) == {"completed"},
        saw=lambda: [(name, bench.state(run)) for name, run in zip(names, runs, strict=True)],
    )
    commands_return(bench, runs[names.index("exit.json")])
    assert bench.end_worker(second, signal.SIGTERM) == 0, bench.output(1)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # a socket's path is short
        listener.bind(path.name)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("made", [fifo, endless, loop, unix_socket, folder], ids=lambda made: made.__name__)
def test_what_is_no_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("exit.json", "spec.json", "log", "model.pt"):
        made(tmp_path / name)
    looks: tuple[Callable[[], object], ...] = (
        lambda: segment_files.read_exit(tmp_path),
        lambda: run_folder.read_spec(tmp_path),
        lambda: log_archive.open_log(tmp_path),
        lambda: formats.shows_its_end(tmp_path / "model.pt"),
    )
    for look in looks:
        with pytest.raises(OSError, match=r"exit\.json|spec\.json|log|model\.pt"):
            look()
    assert fingerprint.contents(tmp_path / "model.pt") is None
    assert takes_resume_from(str(tmp_path / "model.pt")) is False


def test_a_fifo_is_not_copied(tmp_path: Path) -> None:
    fifo(tmp_path / "a.pt")
    with pytest.raises(OSError, match="is a FIFO, not a file"):
        copying.copy(tmp_path / "a.pt", tmp_path / "copy")


def test_a_fifo_is_named_for_what_it_is(tmp_path: Path) -> None:
    fifo(tmp_path / "exit.json")
    with pytest.raises(OSError, match=r"is a FIFO, not a file: '.*/exit.json'"):
        segment_files.read_exit(tmp_path)


def test_a_file_that_is_too_large_to_be_ours_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "exit.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"is larger than 256 MiB: '.*/exit.json'"):
        segment_files.read_exit(tmp_path)


def test_a_draft_takes_the_place_of_a_fifo_and_leaves_a_link_alone(tmp_path: Path) -> None:
    fifo(tmp_path / "a")
    run_folder.write_synced(tmp_path / "a", (b"content",))
    assert (tmp_path / "a").read_bytes() == b"content"
    run_folder.write_synced(tmp_path / "a", (b"new",))
    assert (tmp_path / "a").read_bytes() == b"new"
    (tmp_path / "b").symlink_to("c")
    with pytest.raises(OSError, match="symbolic link"):
        run_folder.write_synced(tmp_path / "b", (b"content",))
    assert not (tmp_path / "c").exists()


def test_an_end_is_recorded_though_a_folder_has_its_name(bench: Bench) -> None:
    """What the script put there is kept under another name."""
    bench.script("train.sh", '#!/bin/sh\nmkdir "$(dirname $BACKPROP_EVENTS)/exit.json"\n').chmod(0o755)
    run = bench.queue("./train.sh")
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "completed"
    assert len(list(bench.folder(run).glob("exit.json.aside-*"))) == 1
