"""Limits a run's GPU memory by environment variables, where its framework has them.

| framework  | variable                            | what it does                                               |
|------------|-------------------------------------|------------------------------------------------------------|
| PyTorch    | PYTORCH_ALLOC_CONF                  | a limit for the caching allocator, since 2.10              |
| JAX        | XLA_PYTHON_CLIENT_MEM_FRACTION      | a limit, and what is taken at the start                    |
| TensorFlow | TF_FORCE_GPU_ALLOW_GROWTH           | takes memory as needed instead of all of it; no limit      |

Older PyTorch is limited by `import backprop` in the script (`sdk/_limit.py`). TensorFlow has no variable for a limit
(only `tf.config`, which then refuses the script's own `set_memory_growth`). None of them counts the CUDA context
(300-600 MiB) or what libraries allocate themselves, and the limit is per process, not per run. What holds is the
governor, which measures what the run really takes.
"""

import ast
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.environment.installed_packages import versions_of

MAX_SCRIPT_BYTES = 256 * 1024
"""Beyond any script written by hand; parsing 1 MiB would keep the worker's loop busy for over a second."""


class AllocatorFramework(StrEnum):
    """What allocates GPU memory. (The user's setting, `config.keys.Framework`, has `auto` and lacks JAX.)"""

    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"
    JAX = "jax"


_PYTORCH = """torch torchvision torchaudio torchdata torchtext torchtune torch_geometric transformers lightning
    pytorch_lightning lightning_fabric diffusers trl peft accelerate timm ultralytics sentence_transformers fastai
    monai deepspeed composer unsloth bitsandbytes open_clip detectron2 mmengine skorch stable_baselines3
    segmentation_models_pytorch"""
_TENSORFLOW = """tensorflow tf_keras tensorflow_hub tensorflow_probability tensorflow_addons
    tensorflow_datasets"""
_JAX = "jax jaxlib flax optax haiku equinox orbax chex brax numpyro"
_IMPORTED_AS = (
    dict.fromkeys(_PYTORCH.split(), AllocatorFramework.PYTORCH)
    | dict.fromkeys(_TENSORFLOW.split(), AllocatorFramework.TENSORFLOW)
    | dict.fromkeys(_JAX.split(), AllocatorFramework.JAX)
)
# Keras 3 runs on one of three, chosen before it is imported. Source: keras.io/getting_started.
_KERAS_ON = {
    "tensorflow": AllocatorFramework.TENSORFLOW,
    "torch": AllocatorFramework.PYTORCH,
    "jax": AllocatorFramework.JAX,
}
_KERAS_BACKEND = re.compile(rb"""["']KERAS_BACKEND["']\s*(?:\]\s*=|,)\s*["'](\w+)["']""")


def frameworks_of(
    declared: str, script: Path | None, environment: Mapping[str, str] | None = None
) -> frozenset[AllocatorFramework]:
    """Return the frameworks that the run computes with.

    `declared`: "pytorch", "tensorflow", or "auto" for what the script imports, by itself or through a library known to
    bring it. Empty when nothing was recognised: no script, not readable, over 256 KiB, not Python. The script is
    parsed, never executed; modules it imports from its own folder are not followed. Raises ValueError for another
    `declared`.
    """
    if declared != "auto":
        return frozenset({AllocatorFramework(declared)})
    source = _source(script)
    names = set(_imported(source))
    frameworks = {framework for name, framework in _IMPORTED_AS.items() if name in names}
    if "keras" in names:
        chosen = _KERAS_BACKEND.search(source)
        backend = chosen[1].decode() if chosen else (environment or {}).get("KERAS_BACKEND", "tensorflow")
        frameworks.add(_KERAS_ON.get(backend, AllocatorFramework.TENSORFLOW))
    return frozenset(frameworks)


def limit_environment(
    frameworks: frozenset[AllocatorFramework],
    limit_mib: int,
    total_mib: int,
    environment: Mapping[str, str],
    program: str,
) -> dict[str, str]:
    """Return the variables to add so that the run keeps to `limit_mib` on each of its GPUs.

    `total_mib`: of the GPU (the smallest of several: they get the same share). `environment`: the run's own; what
    the user set there wins. `program`: what is executed, to find its PyTorch. Empty when the limit is the whole GPU.
    """
    if limit_mib >= total_mib:
        return {}
    added: dict[str, str] = {}
    if AllocatorFramework.PYTORCH in frameworks:
        added |= _for_pytorch(_share(limit_mib, total_mib, 4), environment, program)
    if AllocatorFramework.TENSORFLOW in frameworks:
        added |= _for_tensorflow(environment)
    if AllocatorFramework.JAX in frameworks:
        added |= _for_jax(_share(limit_mib, total_mib, 3), environment)
    return added


_OPTION = "per_process_memory_fraction"
_ALLOCATOR_CONFIG = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def _for_pytorch(share: str, environment: Mapping[str, str], program: str) -> dict[str, str]:
    """Add `per_process_memory_fraction`: "limits the device memory to a fraction of the available memory". Source:
    pytorch/pytorch#161035, in the release notes of 2.10.0. Measured: 2.9.1+cu128 refuses the option when it reads its
    settings (RuntimeError), 2.10.0+cu128 takes it, and 2.13.0+cpu ignores it.

    Where the user has set one of the variables, the option is added to it: general options are read from the first
    of PYTORCH_ALLOC_CONF, CUDA, HIP that is set (even to nothing), CUDA's own from the first of CUDA, HIP,
    PYTORCH_ALLOC_CONF, so a variable beside the user's would undo theirs or be ignored. Source: c10/core/
    AllocatorConfig.cpp and c10/cuda/CUDAAllocatorConfig.h. `backend:cudaMallocAsync` ignores the option, with a
    warning (CUDAAllocatorConfig.cpp).
    """
    versions = versions_of("torch", program, environment)
    if not versions or not all(takes_fraction(version) for version in versions):
        return {}
    users = {name: environment[name].strip(" ,") for name in _ALLOCATOR_CONFIG if name in environment}
    if any(_OPTION in value or "MallocAsync" in value for value in users.values()):
        return {}
    option = f"{_OPTION}:{share}"
    return {name: f"{value},{option}" if value else option for name, value in users.items()} or {
        _ALLOCATOR_CONFIG[0]: option
    }


def takes_fraction(torch_version: str) -> bool:
    """Return whether this PyTorch knows `per_process_memory_fraction`.

    False for pre-releases of 2.10 ("2.10.0a0+git..."), which may be from before the option, and for anything that is
    not a version.
    """
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.\d+)?(?P<rest>[^+]*)", torch_version)
    if numbers is None:
        return False
    release = int(numbers[1]), int(numbers[2])
    return release > (2, 10) or (release == (2, 10) and not re.search(r"a|b|rc|dev", numbers["rest"]))


def _for_tensorflow(environment: Mapping[str, str]) -> dict[str, str]:
    """Let it allocate as needed; exactly "true" counts.

    Source: tensorflow/core/common_runtime/gpu/gpu_bfc_allocator.cc, which reads no variable for a limit."""
    return {} if "TF_FORCE_GPU_ALLOW_GROWTH" in environment else {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def _for_jax(share: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Bound the allocator, with preallocation and without. jaxlib raises if the variable's new name
    XLA_CLIENT_MEM_FRACTION is set too; the old one is understood by all versions, and is the one that scripts
    set themselves. Source: jaxlib/xla_client.py (0.10.2), docs.jax.dev "GPU memory allocation"."""
    names = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
    return {} if any(environment.get(name) for name in names) else {names[0]: share}


def _share(limit_mib: int, total_mib: int, digits: int) -> str:
    """Return `limit_mib` of `total_mib` as "0.xxx", rounded down, never zero: zero would forbid every allocation."""
    scale: int = 10**digits
    return f"0.{max(1, limit_mib * scale // total_mib):0{digits}d}"


def _source(script: Path | None) -> bytes:
    if script is None:
        return b""
    try:
        with os.fdopen(open_regular(script), "rb") as file:
            source = file.read(MAX_SCRIPT_BYTES + 1)
    except OSError:
        return b""
    return source if len(source) <= MAX_SCRIPT_BYTES else b""


_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def _imported(source: bytes) -> Iterator[str]:
    """Yield the top-level names of what is imported anywhere in the source; nothing if it is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a string of the user's, say
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the parser's ways to refuse deep nesting
        return
    pending: list[ast.AST] = [tree]
    while pending:  # ast.walk would visit every expression too, in most of the time taken
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        for block in _BLOCKS:
            pending.extend(getattr(node, block, ()))
