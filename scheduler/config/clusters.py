"""Defines the clusters of a configuration: where their nodes see our files, and what each of their jobs asks for.

They are their user's alone, since they hold commands; a project file may only choose one by its name.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, cast

import msgspec

from backprop.scheduler.errors import BadCommand, BadConfig
from backprop.scheduler.spec import NO_TIMEBOX_S, RunSpec

HERE: Final = "here"
"""What `--on` calls this machine."""
OUR_OPTIONS: Final = frozenset(
    {
        "--array", "--chdir", "--comment", "--dependency", "--error", "--export", "--job-name", "--no-requeue",
        "--open-mode", "--output", "--parsable", "--requeue", "--signal", "--test-only", "--time", "--wait", "--wrap",
        "-a", "-D", "-d", "-e", "-J", "-o", "-t", "-W",
    }
)  # fmt: skip
"""Options of sbatch that a hand-over sets itself."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
_Whole = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Amount = Annotated[float, msgspec.Meta(gt=0, le=65536)]


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster. `folder`: absolute path under which all nodes see our files. `options`: words for sbatch.

    `max_jobs`: of this home at once, waiting ones included. `max_run_minutes`: the timebox there; None for the
    user's. `gpu_option`: how GPUs are asked for. `gpu_types`: GB of each type by name. `setup`: shell lines that
    prepare a run's environment. `python`: interpreter of the node agent. `as_step`: start it under srun.
    `poll_s`: between two snapshots of the jobs. `lease_s`: a node that was out of sight for half as long ends its run,
    and one whose job is over for so long without a sign is taken for gone.
    """

    engine: Literal["slurm"]
    folder: str
    options: tuple[str, ...] = ()
    max_jobs: _Whole = msgspec.field(default=16, name="maxJobs")
    max_run_minutes: Annotated[float, msgspec.Meta(gt=0, le=5_256_000)] | None = msgspec.field(
        default=None, name="maxRunMinutes"
    )
    cpus_per_gpu: _Whole | None = msgspec.field(default=None, name="cpusPerGpu")
    mem_gb_per_gpu: _Amount | None = msgspec.field(default=None, name="memGBPerGpu")
    cpus: _Whole | None = None
    mem_gb: _Amount | None = msgspec.field(default=None, name="memGB")
    gpu_option: Literal["gres", "gpus"] = msgspec.field(default="gres", name="gpuOption")
    gpu_types: dict[str, _Amount] = msgspec.field(default_factory=dict[str, float], name="gpuTypes")
    setup: tuple[str, ...] = ()
    python: str | None = None
    as_step: bool = msgspec.field(default=False, name="asStep")
    poll_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = msgspec.field(default=15, name="pollSeconds")
    lease_s: Annotated[float, msgspec.Meta(ge=6, le=3600)] = msgspec.field(default=120, name="leaseSeconds")


def clusters(value: object) -> object:
    """Read the value of the key `clusters`. Raises ValueError, BadConfig for one with a reason of its own."""
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - one kind of refusal, whatever was wrong
    found: dict[str, Cluster] = {}
    for name, given in cast("dict[str, object]", value).items():
        where = f"clusters.{name}"
        if _NAME.fullmatch(name) is None or name == HERE:
            raise BadConfig(
                f"{where}: expected a name of letters, digits, '_', '.' and '-', other than {HERE}"
            )
        try:
            found[name] = _checked(where, msgspec.convert(given, Cluster))
        except msgspec.ValidationError as error:
            raise BadConfig(f"{where}: {error}") from None
    return found


def cluster_name(value: object) -> object:
    """Read the name of a cluster; None for this machine."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError
    return None if value == HERE else value


def engine_words(value: object) -> object:
    """Read words for a cluster's command, from a list or as a shell splits them."""
    if isinstance(value, str):
        import shlex  # few use it

        value = shlex.split(value)
    if not isinstance(value, list | tuple):
        raise ValueError  # noqa: TRY004
    words = tuple(cast("list[object]", value))
    if not all(isinstance(word, str) and word and word.isprintable() for word in words):
        raise ValueError
    if (ours := _ours(cast("tuple[str, ...]", words))) is not None:
        raise BadCommand(f"--submit {ours}: Backprop sets it itself; leave it out")
    return words


def on_cluster(spec: RunSpec, known: Mapping[str, Cluster], *, chosen: bool) -> RunSpec:
    """Return a specification that names a cluster with what follows from that. `chosen`: its timebox is the user's
    word for this run. Raises BadCommand."""
    if spec.cluster is None:
        lone = {
            "--cpus": spec.cpus,
            "--mem": spec.mem_mib,
            "--gpu-type": spec.gpu_type,
            "--submit": spec.submit,
        }
        if (option := next((name for name, value in lone.items() if value), None)) is not None:
            raise BadCommand(
                f"{option} is for a job of a cluster; give --on CLUSTER with it, or leave it out"
            )
        return spec
    cluster = known.get(spec.cluster)
    if cluster is None:
        names = ", ".join(sorted(known)) or "none"
        raise BadCommand(f"--on {spec.cluster}: no such cluster in your config.json (there: {names})")
    if not chosen and cluster.max_run_minutes is not None:
        spec = msgspec.structs.replace(spec, timebox_s=cluster.max_run_minutes * 60)
    if spec.timebox_s >= NO_TIMEBOX_S:
        raise BadCommand(f"a job of {spec.cluster} needs a time limit; give -m MINUTES")
    if cluster.gpu_types and spec.gpu_type is not None and spec.gpu_type not in cluster.gpu_types:
        types = ", ".join(cluster.gpu_types)
        raise BadCommand(f"--gpu-type {spec.gpu_type}: {spec.cluster} has {types}")
    return msgspec.structs.replace(spec, share=cluster.folder)


def _checked(where: str, cluster: Cluster) -> Cluster:
    """Return a cluster whose fields make sense. Raises BadConfig."""
    folder = cluster.folder
    if not os.path.isabs(folder) or os.path.normpath(folder) != folder or not folder.isprintable():  # noqa: PTH117
        raise BadConfig(f"{where}.folder: expected an absolute path without . and ..; got {folder!r}")
    if (ours := _ours(cluster.options)) is not None:
        raise BadConfig(f"{where}.options: {ours} is set by Backprop itself; leave it out")
    if any("\0" in line or "\n" in line for line in cluster.setup):
        raise BadConfig(f"{where}.setup: expected one shell line in each text")
    if cluster.python is not None and not os.path.isabs(cluster.python):  # noqa: PTH117
        raise BadConfig(f"{where}.python: expected an absolute path; got {cluster.python!r}")
    return cluster


def _ours(words: tuple[str, ...]) -> str | None:
    """Return the first word that a hand-over sets itself; None for none. sbatch takes a short option with its value in
    one word, and a long one by any beginning of it that is clear."""
    for word in words:
        name = word.partition("=")[0]
        short = name[:2] if name[:1] == "-" and name[1:2] != "-" else ""
        begins = len(name) > 3 and any(option.startswith(name) for option in OUR_OPTIONS)
        if short in OUR_OPTIONS or name in OUR_OPTIONS or begins:
            return word
    return None
