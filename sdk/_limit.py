"""The run's GPU memory limit, for PyTorch versions that cannot be given it by environment variable (before 2.10).

`import backprop` must neither import torch nor start CUDA: a script may choose its device, fork, or set CUDA up
later. So a finder waits for `torch.cuda` to be imported, and there puts a call into the queue that PyTorch works
off when CUDA starts. A script that sets a fraction itself does so after that, and has the last word.

Not for TensorFlow: its limit (`tf.config.set_logical_device_configuration`) makes a script's own
`set_memory_growth` raise. JAX has a variable. The limit holds for each process alone, and for what PyTorch's
allocator takes: the CUDA context comes on top.
"""

import os
import sys

TYPE_CHECKING = False  # typing's own constant would import typing, 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Protocol

    class Properties(Protocol):
        total_memory: int

    class Cuda(Protocol):
        """What is used of `torch.cuda`; all of it is in PyTorch 1.8 and later."""

        def device_count(self) -> int: ...
        def get_device_properties(self, device: int) -> Properties: ...
        def set_per_process_memory_fraction(self, fraction: float, device: int) -> None: ...
        def device(self, device: int) -> AbstractContextManager[object]: ...


_ALLOCATOR_CONFIG = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
CONTEXT_MIB = 512


def keep_to_limit() -> None:
    """Have PyTorch keep to BACKPROP_GPU_MEMORY_LIMIT_MB (MiB) on each GPU, once it is there and CUDA starts.

    Does nothing outside a run, without a (sensible) limit, or when the allocator's own variable has one already.
    Safe to call again. Raises nothing.
    """
    limit_mib = os.environ.get("BACKPROP_GPU_MEMORY_LIMIT_MB", "")
    if not os.environ.get("BACKPROP_RUN_ID") or not limit_mib.isdecimal() or not int(limit_mib):
        return
    if any("per_process_memory_fraction" in os.environ.get(name, "") for name in _ALLOCATOR_CONFIG):
        return
    # The CUDA context counts against the run too. The same rule stands in `worker/environment/leader.py`.
    allocator_mib = int(limit_mib) - min(CONTEXT_MIB, int(limit_mib) // 4)
    limit_bytes = allocator_mib * 1024 * 1024
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None:
        _at_start_of(cuda, limit_bytes)
    elif not any(isinstance(finder, _TorchCudaFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchCudaFinder(limit_bytes))


class _TorchCudaFinder:
    """Finds nothing itself: lets the others find `torch.cuda`, and acts when it has been executed."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != "torch.cuda":
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None) if finder is not self else None
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                self._follow(spec)
                return spec
        return None

    def _follow(self, spec: "ModuleSpec") -> None:
        loader = spec.loader
        if loader is None:
            return
        execute = loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _at_start_of(module, self._limit_bytes)

        try:
            loader.exec_module = exec_module  # of this loader alone: the class is everybody's
        except (AttributeError, TypeError):
            return  # a loader without attributes of its own: no limit from here


def _at_start_of(cuda: "ModuleType", limit_bytes: int) -> None:
    """At once if CUDA has been started. `_lazy_call` is private, but older than what it is to call."""
    lazy_call: Callable[[Callable[[], None]], None] | None = getattr(cuda, "_lazy_call", None)
    if lazy_call is not None:
        lazy_call(lambda: _limit(cuda, limit_bytes))  # pyright: ignore[reportArgumentType]  # a module as Cuda


def _limit(cuda: "Cuda", limit_bytes: int) -> None:
    """Raises nothing: PyTorch would end the script with a DeferredCudaCallError, and training must not die of a
    limit that the governor watches over anyway."""
    try:
        for index in _devices(cuda):
            total_bytes = cuda.get_device_properties(index).total_memory
            share = limit_bytes / total_bytes
            whole = limit_bytes + CONTEXT_MIB * 1024 * 1024 >= total_bytes
            if not whole and not _is_limited(cuda, index):
                # Old versions leave the device that was set as the current one; this puts the script's back,
                # without opening a context on it if there was none.
                with cuda.device(index):
                    cuda.set_per_process_memory_fraction(share, index)
    except Exception:
        return


def _devices(cuda: "Cuda") -> "Iterable[int]":
    """The GPUs this process will use. Old versions open a context (300-600 MiB) on a GPU to set its fraction, so a
    rank sets its own alone, and a rank that cannot be told from its siblings (a child of multiprocessing) none."""
    count = cuda.device_count()
    rank = os.environ.get("LOCAL_RANK", "")  # torchrun, accelerate, deepspeed, lightning
    if count == 1 or not rank:
        process = sys.modules.get("multiprocessing.process")
        is_child = process is not None and process.parent_process() is not None
        return range(count) if count == 1 or not is_child else ()
    return (int(rank),) if rank.isdecimal() and int(rank) < count else ()


def _is_limited(cuda: "Cuda", index: int) -> bool:
    """By the script, before it imported us. Older versions cannot say."""
    fraction_of: Callable[[int], float] | None = getattr(cuda, "get_per_process_memory_fraction", None)
    return fraction_of is not None and fraction_of(index) < 1
