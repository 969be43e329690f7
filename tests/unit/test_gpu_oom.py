"""The end of a failed segment's log: which words mean that memory ran out, and which do not."""

from pathlib import Path

import pytest

from backprop.worker.segments.ends.gpu_oom import NATIVE_LINES, TRACEBACK_LINES, out_of_memory

STEPS = "".join(f"step {step} loss 0.{step}\n" for step in range(30))
TORCH = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"
    " of 23.56 GiB"
    " of which 187.44 MiB is free. Including non-PyTorch memory, this process has 23.36 GiB memory in"
    " use. 8.00 GiB"
    " allowed; Of the allocated memory 7.81 GiB is allocated by PyTorch, and 12.44 MiB is reserved by"
    " PyTorch but"
    " unallocated."
)


def traceback(exception: str, prefix: str = "") -> str:
    lines = (
        "Traceback (most recent call last):",
        '  File "/home/ada/train.py", line 63, in <module>',
        "    train(model, loader)",
        "    ~~~~~^^^^^^^^^^^^^^^",
        '  File "/home/ada/train.py", line 41, in train',
        "    loss.backward()",
        *exception.splitlines(),
    )
    return "".join(f"{prefix}{line}\n" for line in lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


PYTHON = {
    "PyTorch 2.5 and later": TORCH,
    "PyTorch 1.13 to 2.4": "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 212.00"
    " MiB (GPU 0; 23.56 GiB total capacity; 23.02 GiB already allocated; 187.44 MiB free; 23.02 GiB"
    " reserved in total by PyTorch)",
    "before": "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.76 GiB total"
    " capacity)",
    "ROCm": "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.07 GiB. GPU 0 has a total"
    " capacity of 16",
    "the runtime": "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously"
    " reported at some other API call, so the stacktrace below might be incorrect.",
    "2.8 and later": "torch.AcceleratorError: CUDA error: out of memory\nSearch for"
    " `cudaErrorMemoryAllocation' in the CUDA documentation for more information.",
    "cuBLAS": "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN 8": "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN 9": "RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuFFT": "RuntimeError: cuFFT error: CUFFT_ALLOC_FAILED",
    "JAX": "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to"
    " allocate 4770354232 bytes.\nBufferAssignment OOM Debugging.\nBufferAssignment stats:\n           "
    "  parameter allocation:  372.76MiB",
    "JAX 0.5": "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB"
    " (3206250496B) on device ordinal 0",
    "JAX of 2021": "RuntimeError: Resource exhausted: Failed to allocate request for 32.00MiB"
    " (33554432B) on device ordinal 0",
    "TensorFlow, eager": "tensorflow.python.framework.errors_impl.ResourceExhaustedError:"
    " {{function_node __wrapped__AddV2_device_/job:localhost/replica:0/task:0/device:GPU:0}} failed to"
    " allocate memory [Op:AddV2]",
    "TensorFlow 1": "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when"
    " allocating tensor with shape[256,112,112,64] and type float on"
    " /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
    "CuPy": "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 8,000,000,000 bytes (allocated"
    " so far: 0 bytes).",
    "Numba": "numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in"
    " CUDA_ERROR_OUT_OF_MEMORY",
    "RAPIDS": "MemoryError: std::bad_alloc: out_of_memory: CUDA error at: /rmm/cuda.hpp:76:"
    " cudaErrorMemoryAllocation out of memory",
}


@pytest.mark.parametrize("exception", [pytest.param(text, id=name) for name, text in PYTHON.items()])
def test_an_exception_that_ended_the_program(exception: str, log: Path) -> None:
    log.write_text(STEPS + traceback(exception))
    assert out_of_memory(log) == exception.splitlines()[0].strip()


def test_a_long_line_is_cut(log: Path) -> None:
    log.write_text(traceback(f"torch.OutOfMemoryError: CUDA out of memory. {'x' * 9000}"))
    said = out_of_memory(log)
    assert said is not None
    assert len(said) == 500


LONG = {
    "OOM when allocating tensor with shape[64,512,512,64] and type float on"
    " /job:localhost/replica:0/task:0/device:GPU:0"
    " by allocator GPU_0_bfc": """\
tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:

Detected at node 'model/conv2d/Conv2D' defined at (most recent call last):
    File "/home/ada/train.py", line 30, in <module>
      model.fit(data)
Node: 'model/conv2d/Conv2D'
{}
\t [[{{{{node model/conv2d/Conv2D}}}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add report_tensor_allocations_upon_oom.
 [Op:__inference_train_function_1234]""",
    "Cuda failure 2 'out of memory'": """\
torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/NCCLUtils.hpp:275, unhandled cuda error
ncclUnhandledCudaError: Call to CUDA function failed.
Last error:
{}""",
    "cuda failed with error 2 out of memory.": "RuntimeError: /io/include/tensorview/tensor.h 168\n{}",
}


@pytest.mark.parametrize("line", LONG)
def test_said_further_down_the_message(line: str, log: Path) -> None:
    log.write_text(STEPS + traceback(LONG[line].format(line)))
    assert out_of_memory(log) == line


NATIVE = {
    "libtorch": f"""\
terminate called after throwing an instance of 'c10::OutOfMemoryError'
  what():  CUDA out of memory. Tried to allocate 212.00 MiB (GPU 0; 23.56 GiB total capacity)
Exception raised from malloc at ../c10/cuda/CUDACachingAllocator.cpp:936 (most recent call first):
{"".join(f"frame #{n}: <unknown function> + 0x2f176 (in /opt/libc10_cuda.so){chr(10)}" for n in range(40))}
Aborted (core dumped)
""",
    "ggml": """\
CUDA error: out of memory
  current device: 0, in function ggml_cuda_pool_malloc_vmm at ggml-cuda.cu:8583
  cuMemCreate(&handle, reserve_size, &prop, 0)
ggml-cuda.cu:256: !"CUDA error"
Aborted (core dumped)
""",
    "llama.cpp": "CUDA error 2 at /data/llama.cpp/ggml-cuda.cu:5509: out of memory\ncurrent device: 0\n",
    "darknet": "CUDA Error: out of memory: File exists\ndarknet: ./src/cuda.c:36: check_error:"
    " Assertion `0' failed.\n",
    "a macro": "GPUassert: out of memory kernel.cu 42\n",
    "MXNet": "terminate called after throwing an instance of 'dmlc::Error'\n  what():  [10:44:35]"
    " src/storage/pooled.h:107:"
    " cudaMalloc failed: out of memory\n",
    "XLA": "2026-05-14 16:15:16.513776: E external/xla/xla/pjrt/pjrt_stream_executor_client.cc:1981]"
    " Execution of replica"
    " 0 failed: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5520758552 bytes.\n",
    "rich": f"╭──── Traceback (most recent call last) ────╮\n│ train.py:41 │\n╰──────╯\n{TORCH[6:]}\n",
    "print(error); exit(1)": f"{TORCH.partition(': ')[2]}\n",
}


@pytest.mark.parametrize("end", [pytest.param(text, id=name) for name, text in NATIVE.items()])
def test_last_words_without_a_traceback(end: str, log: Path) -> None:
    log.write_text(STEPS + end)
    said = out_of_memory(log)
    assert said is not None
    assert said in end


HOST = {
    "PyTorch": "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't"
    " allocate memory: you tried to allocate 132426121216 bytes. Error code 12 (Cannot allocate memory)",
    "without errno": "RuntimeError: [enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not"
    " enough memory: you tried to allocate 1981808640 bytes.",
    "Python": "MemoryError",
    "numpy": "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 74.5 GiB for an array with"
    " shape (100000, 100000) and data type float64",
    "fork": "OSError: [Errno 12] Cannot allocate memory",
    "a data loader": "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. ",
    "TensorFlow": "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating"
    " tensor with shape[99,99999,999] and type float on /job:localhost/replica:0/task:0/device:CPU:0 by"
    " allocator cpu [Op:Fill]",
}


@pytest.mark.parametrize("exception", [pytest.param(text, id=name) for name, text in HOST.items()])
def test_the_machines_own_memory(exception: str, log: Path) -> None:
    log.write_text(STEPS + traceback(exception))
    assert out_of_memory(log) is None


@pytest.mark.parametrize(
    "end",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what(): "
        " std::bad_alloc\nAborted\n",
        "train.sh: fork: Cannot allocate memory\n",
    ],
)
def test_the_machines_own_memory_without_a_traceback(end: str, log: Path) -> None:
    log.write_text(STEPS + end)
    assert out_of_memory(log) is None


CAUGHT = "CUDA out of memory, halving the batch to 16\n"
FALSE_ALARMS = {
    "caught, then another exception": CAUGHT + STEPS + traceback("KeyError: 'lr'"),
    "caught just before another exception": CAUGHT + traceback("KeyError: 'lr'"),
    "caught and printed, then another exception": traceback(TORCH)
    + CAUGHT
    + STEPS
    + traceback("KeyError: 'lr'"),
    "caught, then an end without words": STEPS + CAUGHT + "step 31 loss 0.3\n",
    "caught, and nothing after": STEPS + CAUGHT,
    "skipped a batch, told with the exception's words": f"skipping: {TORCH}\nstep 31 loss 0.3\n",
    "caught and printed, long before a silent end": traceback(TORCH) + STEPS * (TRACEBACK_LINES // 30 + 1),
    "a native warning, long before a silent end": "CUDA error: out of memory\n" + STEPS[: NATIVE_LINES * 20],
    "tried again inside except, for hours": traceback(TORCH)
    + "\nDuring handling of the above exception, another exception occurred:\n\n"
    + traceback("ValueError: loss is NaN"),
    "a broken size": traceback(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate more than 1EB memory."
    ),
    "XLA's advice": "2025-05-18 21:59:55.086788: W external/xla/xla/tsl/framework/bfc_allocator.cc:310]"
    " Allocator"
    " (GPU_0_bfc) ran out of memory trying to allocate 3.37GiB with freed_by_count=0. The caller"
    " indicates that this is"
    " not a failure, but this may mean that there could be performance gains if more memory were"
    " available.\n",
    "Spark's": traceback("java.lang.OutOfMemoryError: Java heap space"),
    "another CUDA error": traceback("RuntimeError: CUDA error: an illegal memory access was encountered"),
    "cuDNN, host memory": traceback("RuntimeError: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    "no error at all": STEPS,
    "nothing": "",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in FALSE_ALARMS.items()])
def test_words_that_did_not_end_the_program(text: str, log: Path) -> None:
    log.write_text(text)
    assert out_of_memory(log) is None


def test_raised_from_an_exception_that_said_so(log: Path) -> None:
    chain = (
        traceback(TORCH)
        + "\nThe above exception was the direct cause of the following exception:\n\n"
        + traceback("trainer.TrainingFailed: epoch 3")
    )
    log.write_text(STEPS + chain)
    assert out_of_memory(log) == TORCH[:500]


def test_ranks_under_torchrun(log: Path) -> None:
    """Rank 1 runs out of memory, rank 0 then fails of the lost peer and says so last, torchrun reports at length."""
    report = "".join(f"  rank {rank} (local_rank: {rank}) exitcode: 1\n" for rank in range(120))
    launcher = traceback(
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n=====\ntrain.py FAILED"
    )
    log.write_text(
        STEPS
        + traceback(TORCH, "[rank1]: ")
        + traceback("torch.distributed.DistBackendError: NCCL error: remote process exited", "[rank0]: ")
        + "E1121 20:00:01.123 4242 torch/distributed/elastic/multiprocessing/api.py:869] failed"
        " (exitcode: 1)\n" + launcher + report
    )
    assert out_of_memory(log) == f"[rank1]: {TORCH}"[:500]


def test_a_chain_of_a_rank(log: Path) -> None:
    log.write_text(
        traceback(TORCH, "[rank0]: ")
        + "[rank0]: \n[rank0]: The above exception was the direct cause of the following"
        " exception:\n[rank0]: \n" + traceback("RuntimeError: epoch 3", "[rank0]: ")
    )
    assert out_of_memory(log) is not None


def test_under_a_launcher_that_reports_a_failed_process(log: Path) -> None:
    log.write_text(
        STEPS
        + traceback(TORCH)
        + traceback(
            "subprocess.CalledProcessError: Command '['python', 'train.py']' returned non-zero exit status 1."
        )
    )
    assert out_of_memory(log) == TORCH[:500]
    log.write_text(
        STEPS
        + NATIVE["libtorch"]
        + traceback("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ")
    )
    assert out_of_memory(log) is not None


def test_a_summary_after_the_end(log: Path) -> None:
    summary = "".join(f"wandb: metric_{n} ▁▂▃▅▇█\n" for n in range(TRACEBACK_LINES - 5))
    log.write_text(traceback(TORCH) + summary)
    assert out_of_memory(log) == TORCH[:500]


def test_progress_bars_colours_and_broken_text(log: Path) -> None:
    bar = b"".join(b"\r%d%%|\xe2\x96\x88 \xff" % n for n in range(50))
    log.write_bytes(bar + b"\n" + traceback(f"\x1b[1;31m{TORCH}\x1b[0m").encode() + bar)
    assert out_of_memory(log) == TORCH[:500]


def test_only_the_end_of_a_large_log_is_read(log: Path) -> None:
    filling = ("x" * 99 + "\n") * 2000
    log.write_text(filling + traceback(TORCH))
    assert out_of_memory(log) == TORCH[:500]
    log.write_text(traceback(TORCH) + filling)
    assert out_of_memory(log) is None


def test_no_log(tmp_path: Path) -> None:
    assert out_of_memory(tmp_path / "none") is None
    assert out_of_memory(tmp_path) is None
    (tmp_path / "link").symlink_to("/etc/passwd")
