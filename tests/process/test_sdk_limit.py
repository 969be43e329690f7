"""`import backprop` gives PyTorch the run's GPU memory limit: real scripts, and a torch with the same lazy start.

The stand-in has of PyTorch what the limit meets: `torch` imports `torch.cuda`, which queues calls until CUDA starts
and turns what they raise into an error of its own. It prints what reaches the driver.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TORCH = "from torch import cuda as cuda\n"
CUDA = """
import contextlib, os, sys

class DeferredCudaCallError(Exception): pass

GPUS = [size * 1024**3 for size in map(int, os.environ.get("FAKE_GPUS_GIB", "24").split())]
_initialized, _initializing, _queued_calls, _current = False, False, [], 0

def _lazy_call(callable, **kwargs):
    callable() if _initialized else _queued_calls.append(callable)

_lazy_call(lambda: print("capability"))

def _lazy_init():
    global _initialized, _initializing
    if _initialized or _initializing:
        return
    if not GPUS:
        raise AssertionError("Torch not compiled with CUDA enabled")
    print("init")
    _initializing = True
    for call in _queued_calls:
        try:
            call()
        except Exception as error:
            raise DeferredCudaCallError(str(error)) from error
    _initializing, _initialized = False, True

init = _lazy_init

def device_count():
    return len(GPUS)

class _Properties:
    def __init__(self, total_memory):
        self.total_memory = total_memory

def get_device_properties(index):
    _lazy_init()
    if os.environ.get("FAKE_BROKEN"):
        raise RuntimeError("CUDA error: unknown error")
    return _Properties(GPUS[index])

@contextlib.contextmanager
def device(index):
    global _current
    _lazy_init()
    before, _current = _current, index
    yield
    _current = before

def set_per_process_memory_fraction(fraction, index):
    _lazy_init()
    assert isinstance(fraction, float) and 0 <= fraction <= 1 and _current == index
    print(f"GPU {index}: {fraction:.4f}")
"""
GETTER = """
FRACTIONS = {}
_set = set_per_process_memory_fraction

def set_per_process_memory_fraction(fraction, index):
    _set(fraction, index)
    FRACTIONS[index] = fraction

def get_per_process_memory_fraction(index):
    _lazy_init()
    return FRACTIONS.get(index, 1.0)
"""
# A quarter of 24 GiB, and 512 MiB for the CUDA context.
LIMIT = {"BACKPROP_RUN_ID": "r1", "BACKPROP_GPU_MEMORY_LIMIT_MB": "6656"}
START = "import torch; torch.cuda.init()"
CHILD = "import multiprocessing\ndef work():\n    " + START + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "torch/cuda").mkdir(parents=True)
    (tmp_path / "torch/__init__.py").write_text(TORCH)
    (tmp_path / "torch/cuda/__init__.py").write_text(CUDA)
    return tmp_path


def says(folder: Path, code: str, **environment: str) -> list[str]:
    """The lines the script prints; it must exit with 0 and say nothing on stderr."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("BACKPROP_", "PYTORCH_"))
    }
    ours.pop("LOCAL_RANK", None)
    script = folder / "train.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-u", "-W", "error", script],
        env=ours | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "code",
    [
        f"import backprop; {START}",
        f"import torch, backprop; {START}",
        f"import backprop, backprop.cli; import backprop; {START}",
        "import backprop\nfrom torch.cuda import init\ninit()",
        "import backprop, importlib\nimportlib.import_module('torch.cuda').init()",
    ],
)
def test_the_limit_is_set_when_cuda_starts(code: str, folder: Path) -> None:
    assert says(folder, code, **LIMIT) == ["init", "capability", "GPU 0: 0.2500"]


def test_cuda_is_not_started_by_us(folder: Path) -> None:
    assert says(folder, "import backprop, torch", **LIMIT) == []
    assert says(folder, "import backprop, sys; print('torch' in sys.modules)", **LIMIT) == ["False"]


def test_cuda_was_started_before(folder: Path) -> None:
    assert says(folder, f"{START}; import backprop", **LIMIT) == ["init", "capability", "GPU 0: 0.2500"]


def test_the_script_has_the_last_word(folder: Path) -> None:
    before = "import torch; torch.cuda.set_per_process_memory_fraction(0.5, 0)"
    started = ["init", "capability"]
    assert says(folder, f"import backprop; {before}", **LIMIT) == [*started, "GPU 0: 0.2500", "GPU 0: 0.5000"]
    (folder / "torch/cuda/__init__.py").write_text(CUDA + GETTER)
    assert says(folder, f"{before}; import backprop", **LIMIT) == [*started, "GPU 0: 0.5000"]


def test_said_twice_is_done_once(folder: Path) -> None:
    (folder / "torch/cuda/__init__.py").write_text(CUDA + GETTER)
    code = f"from backprop._limit import keep_to_limit as keep; keep(); import torch; keep(); {START}; keep()"
    assert says(folder, code, **LIMIT) == ["init", "capability", "GPU 0: 0.2500"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"BACKPROP_RUN_ID": "r1"},
        {"BACKPROP_GPU_MEMORY_LIMIT_MB": "6656"},
        LIMIT | {"BACKPROP_GPU_MEMORY_LIMIT_MB": ""},
        LIMIT | {"BACKPROP_GPU_MEMORY_LIMIT_MB": "0"},
        LIMIT | {"BACKPROP_GPU_MEMORY_LIMIT_MB": "-1"},
        LIMIT | {"BACKPROP_GPU_MEMORY_LIMIT_MB": "6 GB"},
        LIMIT | {"PYTORCH_ALLOC_CONF": "expandable_segments:True,per_process_memory_fraction:0.2500"},
        LIMIT | {"PYTORCH_CUDA_ALLOC_CONF": "per_process_memory_fraction:0.2500"},
    ],
)
def test_nothing_is_installed_without_need(environment: dict[str, str], folder: Path) -> None:
    code = (
        f"import sys; before = list(sys.meta_path); import backprop; print(sys.meta_path == before); {START}"
    )
    assert says(folder, code, **environment) == ["True", "init", "capability"]


def test_outside_a_run_not_even_the_module_is_loaded(folder: Path) -> None:
    assert says(folder, "import backprop, sys; print('backprop._limit' in sys.modules)") == ["False"]


def test_the_finder_goes_when_it_has_done_its_work(folder: Path) -> None:
    code = "import sys; before = list(sys.meta_path); import backprop, torch; print(sys.meta_path == before)"
    assert says(folder, code, **LIMIT) == ["True"]


def test_a_limit_of_the_whole_gpu_is_none(folder: Path) -> None:
    environment = LIMIT | {"FAKE_GPUS_GIB": "6"}
    assert says(folder, f"import backprop; {START}", **environment) == ["init", "capability"]


SEVERAL = LIMIT | {"FAKE_GPUS_GIB": "24 48"}
BOTH = ["GPU 0: 0.2500", "GPU 1: 0.1250"]


@pytest.mark.parametrize(
    ("environment", "limited"),
    [
        ({}, BOTH),
        ({"LOCAL_RANK": "0"}, BOTH[:1]),
        ({"LOCAL_RANK": "1"}, BOTH[1:]),
        ({"LOCAL_RANK": "2"}, []),
        ({"LOCAL_RANK": "x"}, []),
        ({"LOCAL_RANK": "1", "FAKE_GPUS_GIB": "24"}, BOTH[:1]),
    ],
)
def test_several_gpus(environment: dict[str, str], limited: list[str], folder: Path) -> None:
    said = says(folder, f"import backprop; {START}", **SEVERAL | environment)
    assert said == ["init", "capability", *limited]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("gpus", ["24", "24 48"])
def test_children(method: str, gpus: str, folder: Path) -> None:
    """A child of multiprocessing is one of several ranks, and will not say on which GPU."""
    main = "if __name__ == '__main__':\n"
    start = f"    child = multiprocessing.get_context('{method}').Process(target=work); child.start(); child.join()\n"
    said = says(folder, f"import backprop\n{CHILD}{main}{start}", **LIMIT | {"FAKE_GPUS_GIB": gpus})
    assert said == ["init", "capability", *(["GPU 0: 0.2500"] if gpus == "24" else [])]


def test_a_plain_fork(folder: Path) -> None:
    code = f"import backprop, os\nif os.fork() == 0:\n    {START}\n    os._exit(0)\nos.wait()"
    assert says(folder, code, **LIMIT) == ["init", "capability", "GPU 0: 0.2500"]


def test_training_does_not_die_of_it(folder: Path) -> None:
    start = f"import backprop; {START}"
    assert says(folder, start, **LIMIT, FAKE_BROKEN="1") == ["init", "capability"]
    (folder / "torch/cuda/__init__.py").write_text("def init(): print('no CUDA here')\n")
    assert says(folder, start, **LIMIT) == ["no CUDA here"]
    (folder / "torch/cuda/__init__.py").write_text("raise ImportError('libcudart.so.12')\n")
    code = "import backprop\ntry:\n    import torch\nexcept ImportError as error:\n    print(error)"
    assert says(folder, code, **LIMIT) == ["libcudart.so.12"]


def test_no_torch_at_all(tmp_path: Path) -> None:
    hidden = "import sys, backprop\nsys.modules['torch'] = None\n"
    code = f"{hidden}try:\n    import torch\nexcept ImportError:\n    print('none')"
    assert says(tmp_path, code, **LIMIT) == ["none"]


@pytest.mark.skipif(
    find_spec("torch") is None, reason="PyTorch is not installed here: its stand-in has to do"
)
def test_the_real_one(folder: Path) -> None:
    """Its own queue holds the call, whatever CUDA it was built for, and it says nothing on import."""
    shutil.rmtree(folder / "torch")
    code = "import backprop, torch; print(*{call.__module__ for call, _ in torch.cuda._queued_calls})"
    assert "backprop._limit" in says(folder, code, **LIMIT)[0].split()
