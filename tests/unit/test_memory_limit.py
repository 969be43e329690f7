"""What a script computes with, which PyTorch its interpreter would import, and the variables that limit it."""

import importlib.metadata
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from backprop.worker.environment.installed_packages import UNREADABLE, versions_of
from backprop.worker.environment.memory_limit import (
    MAX_SCRIPT_BYTES,
    AllocatorFramework,
    frameworks_of,
    limit_environment,
    takes_fraction,
)

PYTORCH, TENSORFLOW, JAX = AllocatorFramework.PYTORCH, AllocatorFramework.TENSORFLOW, AllocatorFramework.JAX
KNOWS, KNOWS_NOT = "2.10.0+cu128", "2.9.1+cu128"


def install(site: Path, version: str, *, metadata: str | None = None) -> None:
    """A PyTorch as pip leaves it, as far as anybody looks at it."""
    (site / "torch").mkdir(parents=True, exist_ok=True)
    (site / "torch/__init__.py").write_text("raise AssertionError('imported')\n")
    (site / "torch/version.py").write_text(
        f"from typing import Optional\n\n__all__ = ['__version__', 'cuda']\n__version__ = '{version}'\n"
        "cuda: Optional[str] = '12.8'\n"
    )
    (site / f"torch-{metadata or version}.dist-info").mkdir()


def interpreter(prefix: Path, minor: str = "3.11") -> Path:
    """`bin/python` -> `python3` -> `python3.11`, as everywhere."""
    (prefix / "bin").mkdir(parents=True)
    real = prefix / f"bin/python{minor}"
    real.write_text("#!/bin/false\n")
    real.chmod(0o755)
    (prefix / "bin/python3").symlink_to(real.name)
    (prefix / "bin/python").symlink_to("python3")
    (prefix / f"lib/python{minor}/site-packages").mkdir(parents=True)
    return prefix / "bin/python"


def venv_of(prefix: Path, base: Path, *, system: bool = False) -> Path:
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").symlink_to(base)
    (prefix / "lib/python3.11/site-packages").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = {str(system).lower()}\nversion = 3.11.7\n"
    )
    return prefix / "bin/python"


# What the script imports


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch", {PYTORCH}),
        ("import torch.nn as nn, os", {PYTORCH}),
        ("from torchvision.models import resnet18", {PYTORCH}),
        ("def main():\n    from transformers import Trainer", {PYTORCH}),
        (
            "try:\n    import lightning as L\nexcept ImportError:\n    import pytorch_lightning as L",
            {PYTORCH},
        ),
        ("from ultralytics import YOLO", {PYTORCH}),
        ("match 1:\n    case 1:\n        with open('x'):\n            import torch", {PYTORCH}),
        (
            "class A:\n    async def f(self):\n        while 1: pass\n        else:\n            import jax",
            {JAX},
        ),
        ("try: pass\nexcept* ValueError: pass\nfinally:\n    import tensorflow", {TENSORFLOW}),
        ("f = lambda: 1 if 2 else 3", set()),
        ("import tensorflow as tf", {TENSORFLOW}),
        ("import jax, torch", {JAX, PYTORCH}),
        ("from flax import linen as nn\nimport optax", {JAX}),
        ("import keras", {TENSORFLOW}),
        ("import os\nos.environ['KERAS_BACKEND'] = 'jax'\nimport keras", {JAX}),
        ('import os\nos.environ.setdefault("KERAS_BACKEND", "torch")\nimport keras', {PYTORCH}),
        ("import numpy\nfrom . import torch\nfrom .torch import nn\nimport mytorch", set()),
        ("# import torch\nprint('import torch')", set()),
        ("import torch\nprint('never closed'", set()),
        ("pattern = '\\d'\nimport torch", {PYTORCH}),
        ("-" * 100_000 + "1", set()),
        ("import torch\0", set()),
        ("", set()),
    ],
)
def test_auto_reads_the_imports(source: str, found: set[AllocatorFramework], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(source)
    assert frameworks_of("auto", script) == found


def test_keras_on_what_the_shell_chose(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import keras")
    assert frameworks_of("auto", script, {"KERAS_BACKEND": "torch"}) == {PYTORCH}
    assert frameworks_of("auto", script, {"KERAS_BACKEND": "unheard-of"}) == {TENSORFLOW}


def test_auto_of_what_cannot_be_read(tmp_path: Path) -> None:
    large, fifo = tmp_path / "large.py", tmp_path / "fifo.py"
    large.write_text("import torch\n" + "#" * MAX_SCRIPT_BYTES)
    os.mkfifo(fifo)
    for script in (None, tmp_path, tmp_path / "none.py", large, fifo, Path(sys.executable)):
        assert frameworks_of("auto", script) == frozenset()


def test_a_source_that_declares_its_encoding(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\nimport torch\n")
    assert frameworks_of("auto", script) == {PYTORCH}


def test_declared_is_believed(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import torch")
    assert frameworks_of("tensorflow", script) == {TENSORFLOW}
    assert frameworks_of("pytorch", None) == {PYTORCH}
    with pytest.raises(ValueError, match="chainer"):
        frameworks_of("chainer", script)


# Which PyTorch


@pytest.mark.parametrize(
    ("version", "knows"),
    [
        ("1.13.1", False),
        ("2.1.0", False),
        ("2.9.1+cu128", False),
        ("2.10.0", True),
        ("2.10.0+cu128", True),
        ("2.10.1.post3", True),
        ("2.10.0a0+b558c986e8.nv25.11", False),
        ("2.10.0.dev20250915+cu128", False),
        ("2.10.0rc1", False),
        ("2.11.0a0+git0123abc", True),
        ("2.13.0+cpu", True),
        ("3.0", True),
        ("10.0.0", True),
        ("2", False),
        ("unknown", False),
        (UNREADABLE, False),
    ],
)
def test_which_versions_take_a_fraction(version: str, knows: bool) -> None:
    assert takes_fraction(version) is knows


@pytest.mark.parametrize("package", ["pytest", "click", "psutil"])
def test_this_very_interpreter(package: str) -> None:
    """A real installation, asked in both ways."""
    assert versions_of(package, sys.executable, os.environ) == {importlib.metadata.version(package)}


def test_a_real_venv(tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=False, symlinks=True)
    python = tmp_path / "v/bin/python"
    told = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert versions_of("torch", str(python), {}) == frozenset()
    install(Path(told.stdout.strip()), "2.13.0+cpu")
    assert versions_of("torch", str(python), {}) == {"2.13.0+cpu"}


def test_a_venv_hides_the_installation_it_is_made_from_unless_told_otherwise(tmp_path: Path) -> None:
    base = interpreter(tmp_path / "usr")
    install(tmp_path / "usr/lib/python3.11/site-packages", "2.4.0")
    install(tmp_path / "home/.local/lib/python3.11/site-packages", "2.5.0")
    environment = {"HOME": str(tmp_path / "home")}
    alone = venv_of(tmp_path / "alone", base)
    assert versions_of("torch", str(alone), environment) == frozenset()
    open_one = venv_of(tmp_path / "open", base, system=True)
    install(tmp_path / "open/lib/python3.11/site-packages", "2.12.0")
    assert versions_of("torch", str(open_one), environment) == {"2.12.0", "2.4.0", "2.5.0"}
    assert versions_of("torch", str(open_one), environment | {"PYTHONNOUSERSITE": "1"}) == {"2.12.0", "2.4.0"}


def test_an_installation_with_several_pythons(tmp_path: Path) -> None:
    """Only the folders of the version that runs count; where that cannot be seen, all do."""
    base = interpreter(tmp_path / "usr", "3.12")
    install(tmp_path / "usr/lib/python3.12/site-packages", "2.12.0")
    install(tmp_path / "usr/lib/python3.9/site-packages", "1.13.1")
    install(tmp_path / "usr/lib/python3/dist-packages", "2.6.0")
    assert versions_of("torch", str(base), {}) == {"2.12.0", "2.6.0"}
    (tmp_path / "usr/bin/python3.12").rename(tmp_path / "usr/bin/python4")
    base.unlink()
    base.symlink_to("python4")
    assert versions_of("torch", str(base), {}) == {"2.12.0", "2.6.0", "1.13.1"}


def test_conda(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "miniconda3/envs/train")
    install(tmp_path / "miniconda3/envs/train/lib/python3.11/site-packages", "2.11.0")
    install(tmp_path / "miniconda3/lib/python3.11/site-packages", "2.4.0")
    assert versions_of("torch", str(python), {}) == {"2.11.0"}


def test_further_folders_of_the_environment(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "usr")
    install(tmp_path / "extra", "2.3.0")
    install(tmp_path / "base/lib/python3.11/site-packages", "2.5.0")
    environment = {"PYTHONPATH": f"/nowhere:{tmp_path}/extra:", "PYTHONUSERBASE": f"{tmp_path}/base"}
    assert versions_of("torch", str(python), environment) == {"2.3.0", "2.5.0"}
    assert versions_of("torch", str(python), environment | {"PYTHONHOME": "/opt"}) == frozenset()


def test_a_name_found_on_the_path_of_the_run(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "env")
    install(tmp_path / "env/lib/python3.11/site-packages", "2.13.0")
    assert versions_of("torch", "python3", {"PATH": f"/nowhere:{python.parent}"}) == {"2.13.0"}
    assert versions_of("torch", "python3", {"PATH": "/nowhere"}) == frozenset()


@pytest.mark.parametrize("line", ["#!{python}", "#! {python} -s", "#!/usr/bin/env python3"])
def test_an_installed_command_names_its_interpreter(line: str, tmp_path: Path) -> None:
    python = interpreter(tmp_path / "env")
    install(tmp_path / "env/lib/python3.11/site-packages", "2.13.0")
    torchrun = tmp_path / "env/bin/torchrun"
    torchrun.write_text(f"{line.format(python=python)}\nimport sys\n")
    torchrun.chmod(0o755)
    environment = {"PATH": f"{python.parent}:/usr/bin"}
    assert versions_of("torch", str(torchrun), environment) == {"2.13.0"}


def test_what_another_program_would_run_cannot_be_seen(tmp_path: Path) -> None:
    shell = tmp_path / "train.sh"
    shell.write_text("#!/bin/sh\npython train.py\n")
    shell.chmod(0o755)
    for program in (str(shell), "/bin/sh", "/bin/true", str(tmp_path / "none"), str(tmp_path), "a\0b", ""):
        assert versions_of("torch", program, dict(os.environ)) == frozenset()


def test_what_the_package_says_of_itself_counts(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "env")
    site = tmp_path / "env/lib/python3.11/site-packages"
    install(site, "2.13.0", metadata="2.4.0")  # an upgrade that left the old metadata behind
    assert versions_of("torch", str(python), {}) == {"2.13.0"}
    (site / "torch/version.py").unlink()
    assert versions_of("torch", str(python), {}) == {"2.4.0"}
    (site / "torch-2.4.0.dist-info").rmdir()
    assert versions_of("torch", str(python), {}) == {UNREADABLE}
    (site / "torch/__init__.py").unlink()
    assert versions_of("torch", str(python), {}) == frozenset()


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "env")
    (tmp_path / "env/lib/python3.11/site-packages/torch").symlink_to("torch")
    assert versions_of("torch", str(python), {}) == frozenset()


# The variables


@pytest.fixture
def knowing(tmp_path: Path) -> str:
    python = interpreter(tmp_path / "new")
    install(tmp_path / "new/lib/python3.11/site-packages", KNOWS)
    return str(python)


@pytest.fixture
def unknowing(tmp_path: Path) -> str:
    python = interpreter(tmp_path / "old")
    install(tmp_path / "old/lib/python3.11/site-packages", KNOWS_NOT)
    return str(python)


OPTION = "per_process_memory_fraction:0.3333"


@pytest.mark.parametrize(
    ("theirs", "added"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": OPTION}),
        (
            {"PYTORCH_ALLOC_CONF": "expandable_segments:True"},
            {"PYTORCH_ALLOC_CONF": f"expandable_segments:True,{OPTION}"},
        ),
        (
            {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:512, "},
            {"PYTORCH_CUDA_ALLOC_CONF": f"max_split_size_mb:512,{OPTION}"},
        ),
        ({"PYTORCH_CUDA_ALLOC_CONF": ""}, {"PYTORCH_CUDA_ALLOC_CONF": OPTION}),
        (
            {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTORCH_CUDA_ALLOC_CONF": "backend:native"},
            {
                "PYTORCH_ALLOC_CONF": f"expandable_segments:True,{OPTION}",
                "PYTORCH_CUDA_ALLOC_CONF": f"backend:native,{OPTION}",
            },
        ),
        ({"PYTORCH_ALLOC_CONF": "per_process_memory_fraction:0.9"}, {}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}, {}),
    ],
)
def test_pytorch(theirs: dict[str, str], added: dict[str, str], knowing: str) -> None:
    assert limit_environment(frozenset({PYTORCH}), 8000, 24_000, theirs, knowing) == added


def test_never_an_option_that_the_version_would_refuse(unknowing: str, knowing: str, tmp_path: Path) -> None:
    limited = frozenset({PYTORCH})
    assert limit_environment(limited, 8000, 24_000, {}, unknowing) == {}
    assert limit_environment(limited, 8000, 24_000, {}, str(tmp_path / "none")) == {}
    install(tmp_path / "beside", KNOWS_NOT)  # one of two may be imported: the older one decides
    assert limit_environment(limited, 8000, 24_000, {"PYTHONPATH": f"{tmp_path}/beside"}, knowing) == {}


def test_jax_and_tensorflow(tmp_path: Path) -> None:
    both = frozenset({JAX, TENSORFLOW})
    none = str(tmp_path)
    assert limit_environment(both, 8000, 24_000, {}, none) == {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.333",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    theirs = {"XLA_CLIENT_MEM_FRACTION": ".9", "TF_FORCE_GPU_ALLOW_GROWTH": "false"}
    assert limit_environment(both, 8000, 24_000, theirs, none) == {}
    theirs = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".9", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert limit_environment(frozenset({JAX}), 8000, 24_000, theirs, none) == {}
    theirs = {"XLA_CLIENT_MEM_FRACTION": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert limit_environment(frozenset({JAX}), 1, 24_000, theirs, none) == {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.001"
    }


def test_nothing_to_limit(knowing: str) -> None:
    assert limit_environment(frozenset(), 8000, 24_000, {}, knowing) == {}
    assert limit_environment(frozenset(AllocatorFramework), 24_000, 24_000, {}, knowing) == {}


@pytest.mark.parametrize(("limit_mib", "share"), [(1, "0.0001"), (12_000, "0.5000"), (23_999, "0.9999")])
def test_the_share_is_rounded_down_but_never_to_nothing(limit_mib: int, share: str, knowing: str) -> None:
    added = limit_environment(frozenset({PYTORCH}), limit_mib, 24_000, {}, knowing)
    assert added == {"PYTORCH_ALLOC_CONF": f"per_process_memory_fraction:{share}"}
