"""Defines the fixtures and markers that all tests share."""

import fcntl
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database, open_database
from tests.support.bare_supervisor import Stand
from tests.support.fakes import FakeDriver, build_driver
from tests.support.harness import Bench, new_board
from tests.support.probe_cases import Machine

# Started in the background or under nohup: children would be deaf to Ctrl-C and to a closed terminal, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


MARKERS = {
    "process": {"process", "commands", "end_to_end", "faults", "frameworks", "trainers", "slurm"},
    "slow": {"end_to_end", "faults", "frameworks", "trainers", "slurm"},
}
"""Which folders of tests/ a marker is for."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder: `process` starts processes, `slow` takes seconds each. `gpu`: needs the fake driver,
    which is compiled."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        for marker, folders in MARKERS.items():
            if folder in folders:
                item.add_marker(marker)
        if item.get_closest_marker("long") and "long" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m long"))
        if "nvml_library" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Let one of several workers rewrite the asserts of all test files, which takes ten seconds, while the others wait
    for its bytecode. It is written even under PYTHONDONTWRITEBYTECODE, which would have each worker do it all."""
    if not hasattr(session.config, "workerinput"):
        return (yield)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    with Path(__file__).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            sys.dont_write_bytecode = before


@pytest.fixture(scope="session", autouse=True)
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give this process a board of its own; a bench has another."""
    os.environ["BACKPROP_BOARD"] = str(new_board(tmp_path_factory.mktemp("board")))
    return Path(os.environ["BACKPROP_BOARD"])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a home and a project folder; at the end, assert that no process of it is left."""
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Open a new database, a real file, in this process."""
    opened = open_database(layout.ensure(Home(tmp_path / "home")))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fake libnvidia-ml.so.1. Skips where no C compiler is."""
    return build_driver(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(bench: Bench, nvml_library: Path) -> FakeDriver:
    """Make a fake NVIDIA driver that everything started by the bench sees."""
    made = FakeDriver(bench.home.parent / "driver", nvml_library)
    seen = made.environment()
    bench.environment |= {name: seen[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_DIR")}
    return made


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Make a folder that probes take for a machine without a GPU."""
    (tmp_path / "machine").mkdir()
    made = Machine(tmp_path / "machine")
    yield made
    made.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    try:
        yield made
    finally:
        made.close()
