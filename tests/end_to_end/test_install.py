"""What is built installs and runs: the wheel and the sdist, in a fresh virtual environment of each Python here.

Neither pip's cache nor anything of the test's environment is used. `python -m build` builds; `uv build` too, where
there is uv, and then the two wheels hold the same files.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.fresh_machine import copy_checkout, run
from tests.support.harness import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
SHARED = (
    "share/man/man1/backprop.1",
    "share/bash-completion/completions/backprop.bash",
    "share/zsh/site-functions/_backprop",
    "share/fish/vendor_completions.d/backprop.fish",
    "share/backprop/skills/backprop/SKILL.md",
)
OLDEST, NEWEST = 11, 14


def interpreters() -> list[Path]:
    """Return a Python of each supported version that this machine has."""
    folders = [*map(Path, os.get_exec_path()), *sorted((Path.home() / ".pyenv/versions").glob("*/bin"))]
    found: list[Path] = [Path(sys.executable)]
    for minor in range(OLDEST, NEWEST + 1):
        for folder in folders:
            path = folder / f"python3.{minor}"
            code = f"import sys, venv, ensurepip; sys.exit(sys.version_info[1] != {minor})"
            if minor != sys.version_info[1] and path.exists():
                if subprocess.run([path, "-c", code], capture_output=True, check=False).returncode == 0:
                    found.append(path)
                    break
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the checkout."""
    return copy_checkout(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build with `python -m build`: the sdist, and from it the wheel."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "venv", folder / "tools", cwd=folder)
    run(folder / "tools/bin/pip", "install", "-q", "--no-cache-dir", "build>=1.2,<2", cwd=folder)
    run(folder / "tools/bin/python", "-m", "build", "--outdir", folder, source, cwd=folder)
    return folder


def wheel(folder: Path) -> Path:
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_what_it_should(built: Path) -> None:
    names = zipfile.ZipFile(wheel(built)).namelist()
    assert "backprop/py.typed" in names
    assert "backprop/integrations/at_launch/sitecustomize.py" in names
    for shared in SHARED:
        assert sum(name.endswith(f".data/data/{shared}") for name in names) == 1, shared
    assert not [name for name in names if name.startswith(("tests/", "tools/", "docs/"))]


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).resolve().name)
def test_it_runs_on_each_python(built: Path, python: Path, tmp_path: Path) -> None:
    run(python, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    command = tmp_path / "venv/bin/backprop"
    run(tmp_path / "venv/bin/pip", "install", "-q", "--no-cache-dir", wheel(built), cwd=tmp_path)
    trains_in_a_chain(command, tmp_path)
    for shared in SHARED:
        assert (tmp_path / "venv" / shared).is_file(), shared


def test_the_sdist_installs_and_runs(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    run(tmp_path / "venv/bin/pip", "install", "-q", "--no-cache-dir", sdist, cwd=tmp_path)
    trains_in_a_chain(tmp_path / "venv/bin/backprop", tmp_path)


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_builds_the_same_wheel(built: Path, source: Path, tmp_path: Path) -> None:
    run("uv", "build", "--no-cache", "--out-dir", tmp_path, source, cwd=tmp_path)
    ours, theirs = (
        {name for name in zipfile.ZipFile(wheel(folder)).namelist() if not name.endswith("RECORD")}
        for folder in (built, tmp_path)
    )
    assert ours == theirs
    assert list(tmp_path.glob("*.tar.gz"))


def trains_in_a_chain(command: Path, folder: Path) -> None:
    """Train the digits in two segments or more, by the installed command alone."""
    shutil.copytree(
        ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__", "*-out")
    )
    home = {"BACKPROP_HOME": str(folder / "home"), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    limits = ("--min-free-ram", "0", "--max-cpu-load", "1000", "--gpu-probe", "none", "-m", "0.05")
    out = run(
        command,
        "run",
        "--follow",
        *limits,
        "examples/digits.py",
        "--",
        "--epochs",
        "12",
        cwd=folder,
        env=home,
    )
    assert "segment 2" in out
    assert "completed" in run(command, "list", cwd=folder, env=home)
    run(command, "doctor", "--bundle", folder / "report.txt", cwd=folder, env=home)
    assert "## Versions" in (folder / "report.txt").read_text()
