"""`import backprop` is typed: a small consumer passes the strict checkers, and a wrong one does not.

The package is laid into a virtual environment as the wheel lays it, `py.typed` included, so that the checkers take it
for what is installed and not for source of the project. They come with the extra `check`.
"""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

from tests.support.harness import ROOT

RIGHT = """
    from pathlib import Path
    from typing import assert_type

    import backprop

    assert_type(backprop.resume_from(), str | None)
    assert_type(backprop.run_id(), str | None)
    assert_type(backprop.segment(), int | None)
    assert_type(backprop.should_stop(), bool)
    assert_type(backprop.deadline(), float | None)


    class Tensor:
        def item(self) -> float:
            return 0.5


    backprop.log(step=1, loss=0.3, accuracy=Tensor())
    backprop.checkpoint(Path("out") / "a.pt", step=1, seconds=0.1)
"""
WRONG = """
    import backprop

    backprop.checkpoint(3)
    backprop.log(step="one")
    length: int = len(backprop.resume_from())
    backprop.no_such_name()
"""
WRONG_LINES = (4, 5, 6, 7)
CHECKERS = {
    "basedpyright": ("--level", "error", "--pythonpath"),
    "mypy": ("--strict", "--no-incremental", "--no-error-summary", "--python-executable"),
}


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with an environment in which `backprop` is installed."""
    folder = tmp_path_factory.mktemp("consumer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")})
    shutil.copytree(ROOT / "sdk", Path(packages) / "backprop", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in (("right", RIGHT), ("wrong", WRONG)):
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def problems(checker: str, consumer: Path, name: str) -> str:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: pip install '.[check]'")
    done = subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker], consumer / "venv/bin/python", f"{name}.py"],
        cwd=consumer,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "could not be resolved" not in done.stdout, done.stdout
    assert done.returncode == (0 if name == "right" else 1), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_consumer_that_is_right_passes(checker: str, consumer: Path) -> None:
    assert "error" not in problems(checker, consumer, "right").replace("0 errors", "")


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_wrong_line_of_a_consumer_is_found(checker: str, consumer: Path) -> None:
    told = problems(checker, consumer, "wrong")
    assert all(f"wrong.py:{line}:" in told for line in WRONG_LINES), told
