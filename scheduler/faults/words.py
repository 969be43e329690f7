"""Tells the kind of an exception by its class and its message, from tables of what libraries print.

A class that can mean one thing only decides first. Then what the message says of GPUs, disks, ports and workers,
whatever class it has; then the other classes; then other messages.
"""

import re
from typing import Final

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.faults.last_line import DISK_FULL, PORT_IN_USE

GPU_MEMORY: Final = re.compile(
    r"\b(?:CUDA|HIP|XPU|GPU)\w*\b.{0,200}?\bout of memory\b"  # PyTorch, NCCL, the CUDA runtime, ggml
    r"|\bOutOfMemoryError\b"  # torch., torch.cuda., c10::, cupy
    r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory|CUDA_ERROR_OUT_OF_MEMORY"
    r"|_STATUS_ALLOC_FAILED\b|CUDNN_STATUS\w*_DEVICE_ALLOCATION_FAILED|CUFFT_ALLOC_FAILED"
    r"|RESOURCE[_ ]EXHAUSTED: (?:out of memory|failed to allocate request)"  # XLA
    r"|OOM when allocating tensor|ResourceExhaustedError:.*failed to allocate memory",  # TensorFlow
    re.IGNORECASE,
)
# "more than 1EB": a broken size, not a full GPU (NVIDIA/nccl#1284).
NO_GPU_MEMORY: Final = re.compile(
    r"more than 1EB memory|is not a failure|java\.lang|device:CPU|allocator cpu"
)

_FIRST: Final = (
    (Fault.SYNTAX, re.compile(r"(?:.*\.)?(?:SyntaxError|IndentationError|TabError)$")),
    (Fault.IMPORT, re.compile(r"(?:.*\.)?(?:ImportError|ModuleNotFoundError|PackageNotFoundError)$")),
    (Fault.DIVISION, re.compile(r"(?:.*\.)?(?:ZeroDivisionError|DivisionByZero)$")),
)
"""Classes that mean one thing, whatever the message."""

_ANY_CLASS: Final = (
    (
        Fault.NCCL,
        re.compile(
            r"\bNCCL (?:error|communicator|WARN|operations|failure)|\bnccl[A-Z]\w*(?:Error|Usage|Argument)\b"
            r"|DistBackendError|\bProcessGroupNCCL\b|\b(?:built with|have|with) NCCL\b"
        ),
    ),
    (
        Fault.DEVICE,
        re.compile(
            r"to be on the same device|on the same device as|not (?:at|on) the same device"
            r"|[Ii]nput type \(\S{1,60}\) and (?:weight|bias) type \(\S{1,60}\) should be the same"
            r"|is on CPU, but expected it to be on GPU|is on \S{1,20}, but expected (?:it|them) to be on"
            r"|can't convert \S{1,20} device type tensor to numpy|device type \S{1,20} but got device type"
            r"|found one of them on device|is not on the expected device"
            r"|Expected a '\S{1,20}' (?:generator )?device type"
            r"|expected device \S{1,20} but got device|different devices?\b|device mismatch|devices do not match",
        ),
    ),
    (
        Fault.CUDA,
        re.compile(
            r"\bCUDA (?:\w+ )?error\b|\bcuDNN error\b|\bCU(?:DNN|BLAS|SPARSE|SOLVER)_STATUS_|\bCUFFT_\w+"
            r"|\bcudaError[A-Z]|\bCUDA_ERROR_|\bHIP error\b|\bhipError[A-Z]|No CUDA GPUs? (?:is|are) available"
            r"|no CUDA-capable device|NVIDIA driver|not compiled with CUDA|CUDA driver|CUDARuntimeError"
            r"|AcceleratorError"
            r"|on a CUDA device but torch\.cuda\.is_available\(\) is False|CUDA unknown error|CUDA initiali[sz]ation"
            r"|device-side assert|invalid device ordinal|Invalid CUDA|CUDA is not available|no kernel image",
        ),
    ),
    (
        Fault.DATA_WORKER,
        re.compile(
            r"DataLoader worker \(pid|DataLoader timed out|BrokenProcessPool|TerminatedWorkerError|BrokenExecutor"
            r"|[Pp]rocess pool (?:was|is not usable)|worker process managed by the executor"
            r"|subprocesses has abruptly died|worker (?:process )?(?:died|exited|crashed) unexpectedly"
        ),
    ),
    (
        Fault.DISK_FULL,
        re.compile(
            f"{DISK_FULL.pattern}|PytorchStreamWriter failed writing|unexpected pos \\d+ vs|disk is full|os error 28"
            "|errno = 28|^OSError: \\d+ requested and \\d+ written$"  # NumPy's tofile
        ),
    ),
    (Fault.PORT_IN_USE, PORT_IN_USE),
)
"""Messages that mean one thing, whatever the class: most of them come as a RuntimeError."""

_CLASSES: Final = (
    (Fault.HOST_MEMORY, re.compile(r"(?:.*\.)?_?(?:Array)?MemoryError$|.*bad_alloc$")),
    (Fault.MISSING_FILE, re.compile(r"(?:.*\.)?FileNotFoundError$")),
    (Fault.PERMISSION, re.compile(r"(?:.*\.)?PermissionError$")),
    (
        Fault.NETWORK,
        re.compile(
            r"(?:.*\.)?(?:Connection\w*Error|Connect(?:ion)?Error|Connect(?:ion)?Timeout\w*|Read(?:Timeout|Error)\w*"
            r"|URLError|HTTPError|HTTPStatusError|gaierror|herror|ProxyError|SSLError|SSLCertVerificationError"
            r"|MaxRetryError|NewConnectionError|NameResolutionError|RemoteDisconnected|IncompleteRead|ChunkedEncodingError"
            r"|Client\w*(?:Connector|Connection|Response|OS)\w*Error|ServerDisconnectedError|ServerTimeoutError"
            r"|HfHubHTTPError|LocalEntryNotFoundError|OfflineModeIsEnabled|CommError|RemoteProtocolError|NetworkError"
            r"|EndpointConnectionError|PoolTimeout)$"
        ),
    ),
)

_MESSAGES: Final = (
    (Fault.USAGE, re.compile(r"arguments are not used by the HfArgumentParser|unrecognized arguments?:")),
    (
        Fault.NAN,
        re.compile(
            r"\bnan values?\b|contain(?:s|ed|ing)? (?:\w+ )?(?:nan|infs?|infinity|non-?finite)\b"
            r"|\bnan or (?:inf\b|infinit)|\binf(?:inite|s)? (?:or|and) nans?\b|either `inf`, `nan`"
            r"|float (?:nan|infinity) to integer"
            r"|\bloss\b.{0,40}\b(?:is|are|was|became|=|of|:) ?(?:not finite|non-?finite|nan|inf)\b|\bnan\b.{0,20}\bloss"
            r"|non-?finite (?:loss|grad|value|norm|entries)|(?:loss|grad\w*|norm)\b.{0,40}\bnon-?finite"
            r"|invalid value encountered|nan (?:is )?(?:detected|encountered|found)"
            r"|not converge because .{0,60}non-finite"
            r"|found invalid values:[\s\S]{0,300}\bnan\b|(?:loss|grad\w*|output)\b.{0,20}\bnan\b|infs or NaNs",
            re.IGNORECASE,
        ),
    ),
    (
        Fault.HOST_MEMORY,
        re.compile(
            r"std::bad_alloc|[Cc]annot allocate memory|can't allocate memory|\[Errno 12\]"
            r"|Unable to allocate .{1,60} for an array|not enough memory: you tried"
        ),
    ),
    (
        Fault.DIVISION,
        re.compile(r"ZeroDivisionError|(?:division|divide|modulo) by (?:zero|0)\b", re.IGNORECASE),
    ),
    (
        Fault.IMPORT,
        re.compile(
            r"cannot open shared object file|\bNo module named\b|undefined symbol|requires .{1,60} to be installed"
        ),
    ),
    (
        Fault.NETWORK,
        re.compile(
            r"[Tt]emporary failure in name resolution|Name or service not known|nodename nor servname"
            r"|Could not resolve host|[Cc]ouldn't connect to|Failed to connect"
            r"|Connection (?:refused|reset|aborted|timed out)|Network is unreachable"
            r"|No route to host|Max retries exceeded|[Cc]heck your (?:internet )?connection|URL fetch failure"
            r"|Couldn't reach|Can't load the .{0,60}connection|\[Errno -[23]\]|\[Errno 1(?:01|04|10|11|13)\]"
            r"|read operation timed out|unable to access 'http|Failed to establish a new connection"
        ),
    ),
    (
        Fault.PERMISSION,
        re.compile(
            r"[Pp]ermission denied|Operation not permitted|Read-only file system|\[Errno (?:1|13|30)\]|EACCES"
        ),
    ),
    (
        Fault.MISSING_FILE,
        re.compile(
            r"No such file or directory|[Ff]ile not found|\[Errno 2\]|does not exist\b"
            r"|\bNo file (?:named|found)|not a file\b"
        ),
    ),
)
"""Messages of classes that can mean anything."""

_GENERIC: Final = re.compile(
    r"(?:builtins\.)?(?:RuntimeError|OSError|IOError|ValueError|Exception|FloatingPointError|TypeError|SystemError)$"
    r"|(?:.*\.)?(?:\w*RuntimeError|LinAlgError|\w*OperationalError|error|SafetensorError|Error|\w*Exception)$"
)
_RUNTIME: Final = re.compile(r"(?:builtins\.)?RuntimeError$|std::runtime_error$")
_TIMED_OUT: Final = re.compile(r"(?:The read operation )?timed out$")


def kind_of(name: str, text: str) -> Fault:
    """Return the kind of an exception; EXCEPTION where nothing says more. `name`: its class. `text`: its message."""
    whole = f"{name}: {text}"
    if GPU_MEMORY.search(whole) is not None and NO_GPU_MEMORY.search(whole) is None:
        return Fault.GPU_MEMORY
    short = name.rpartition(".")[2]
    found = (
        next((kind for kind, classes in _FIRST if classes.match(name)), None)
        or next((kind for kind, words in _ANY_CLASS if words.search(whole)), None)
        or next((kind for kind, classes in _CLASSES if classes.match(name)), None)
    )
    if found is not None:
        return found
    if short == "TimeoutError":
        return Fault.NETWORK if _TIMED_OUT.match(text.strip()) else Fault.EXCEPTION
    is_assertion = short == "AssertionError"
    if is_assertion or _GENERIC.match(name):
        told = (kind for kind, words in _MESSAGES if words.search(text))
        found = next(told, None)
        if found is not None and (not is_assertion or found is Fault.NAN):
            return found
    if is_assertion:
        return Fault.ASSERTION
    return Fault.RUNTIME if _RUNTIME.match(name) else Fault.EXCEPTION
