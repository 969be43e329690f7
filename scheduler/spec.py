"""What did the user ask for? A run's specification, as queued.

It goes into the database, without the environment, and into the run's own folder together with it (see `folders`).
"""

import msgspec


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run as queued. Times in seconds, memory in MiB, temperatures in °C.

    `argv`: the command as the user wrote it, interpreter first. `program`: the absolute path that is executed
    for argv[0]. `cwd`: absolute. `script`: absolute path of the script in argv, if one was recognised.
    None means "no such limit" (`max_*`), "the worker's own" (governor limits), or "not asked for".
    """

    argv: tuple[str, ...]
    program: str
    cwd: str
    umask: int = 0o022
    script: str | None = None
    framework: str = "auto"
    timebox_s: float = 600.0
    grace_s: float = 30.0
    stop_signal: str = "INT"
    checkpoint_every_s: float | None = None
    auto_resume: bool = True
    resume_arg: str = "auto"
    resume_from: str | None = None
    max_segments: int | None = None
    max_total_s: float | None = None
    retries: int = 0
    gpus: int = 1
    exclusive: bool = False
    gpu_memory_limit: str | None = None
    gpu_min_vram_mib: int = 2500
    gpu_min_vram_declared: bool = False
    gpu_max_temp_c: int = 85
    gpu_probe: str = "auto"
    min_free_ram_mib: int = 4096
    max_cpu_load: float = 4.0
    max_parallel: int | None = None
    checkpoint_roots: tuple[str, ...] = ()


def encode(spec: RunSpec) -> str:
    """The specification as one line of JSON, for the database."""
    return msgspec.json.encode(spec).decode()


def decode(text: str | bytes) -> RunSpec:
    """Read `encode`'s text. Raises msgspec.DecodeError on anything else."""
    return msgspec.json.decode(text, type=RunSpec)
