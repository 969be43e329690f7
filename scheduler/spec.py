"""What did the user ask for? A run's specification, as queued.

`RunSpec` goes into the database (never the environment); `SpecFile` goes into the run's own folder as
`spec.json` (0600) together with the environment of the shell that queued it, so that the folder alone can
start the run again.
"""

from pathlib import Path
from typing import Final

import msgspec

FORMAT: Final = 1


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


class SpecFile(msgspec.Struct, frozen=True, kw_only=True):
    """`runs/<id>/spec.json`: enough to put the run back into an empty database and to start it."""

    format: int = FORMAT
    id: str
    name: str
    created_at_s: float
    spec: RunSpec
    environment: dict[str, str]


def encode(spec: RunSpec) -> str:
    """The specification as one line of JSON, for the database."""
    return msgspec.json.encode(spec).decode()


def decode(text: str | bytes) -> RunSpec:
    """Read `encode`'s text. Raises msgspec.DecodeError on anything else."""
    return msgspec.json.decode(text, type=RunSpec)


def read_file(path: Path) -> SpecFile:
    """Read a run folder's `spec.json`. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=SpecFile)
