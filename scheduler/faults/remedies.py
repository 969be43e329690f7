"""Says what to do about each kind of trouble, in one line. `RUN` stands for the run's id."""

from typing import Final

from backprop.scheduler.faults.kinds import Fault

REMEDIES: Final = {
    Fault.GPU_MEMORY: "take a smaller batch or model; or reserve more: backprop resume RUN -g GB",
    Fault.HOST_MEMORY: "take less RAM: a smaller batch, fewer data workers; or wait for more: --min-free-ram GB",
    Fault.OOM_KILLED: "take less RAM: fewer data workers, fewer runs at once (backprop parallel N); --min-free-ram GB",
    Fault.DISK_FULL: "make room (df -h; backprop prune), or keep fewer checkpoints; then backprop resume RUN",
    Fault.PORT_IN_USE: "end what uses the port, or give the script another one, such as 0 for a free one",
    Fault.IMPORT: "install it for the interpreter of the run, or queue it with another: --python PATH",
    Fault.USAGE: "correct the script's arguments, after --, and queue it again",
    Fault.NAN: "lower the learning rate, clip gradients, check the data; --stop-on-nan ends such a run early",
    Fault.HUNG: "see its stacks at the end of its output: backprop logs RUN; --no-watchdog lets it be silent",
    Fault.STARTED_OVER: "tell how it is handed its checkpoint: --resume-arg TEMPLATE; or --no-auto-resume",
    Fault.SEGFAULT: "see where, with --env PYTHONFAULTHANDLER=1; compiled packages may not fit each other",
    Fault.MISSING_FILE: "make the file or correct its path; a relative one begins where the run was queued",
    Fault.PERMISSION: "let the worker's user read or write it (chmod, chown), or give another path",
    Fault.DIVISION: "guard the divisor: often it is the length of an empty list, loader or split",
    Fault.ASSERTION: "a check of the code failed: see what it compares at that line",
    Fault.RUNTIME: "see the message and that line of the code",
    Fault.CUDA: "see the true line with --env CUDA_LAUNCH_BLOCKING=1; does the driver fit (nvidia-smi)?",
    Fault.DEVICE: "move both to one device at that line: .to(device)",
    Fault.NCCL: "see why with --env NCCL_DEBUG=INFO; is there a GPU for each process (--gpus N)?",
    Fault.NETWORK: "check network and address; --retries N tries again; or download first: --env HF_HUB_OFFLINE=1",
    Fault.DATA_WORKER: "see its own error with num_workers=0; often it lacks RAM or /dev/shm: fewer workers",
    Fault.SYNTAX: "correct that line",
    Fault.EXCEPTION: "see the message and that line of the code",
    Fault.UNKNOWN: "see the end of its output: backprop logs RUN",
}
