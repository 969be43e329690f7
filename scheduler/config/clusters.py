"""Defines the clusters of a configuration: where their nodes see our files, and what each of their jobs asks for.

They are their user's alone, since they hold commands; a project file may only choose one by its name.
"""

import os
import re
from typing import Annotated, Final, Literal, cast

import msgspec

from backprop.scheduler.errors import BadCommand, BadConfig

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


def _key(field: str) -> str:
    """Return what a field is called in the configuration."""
    first, *rest = field.removesuffix("_s").split("_")
    words = ["GB" if word == "gb" else word.capitalize() for word in rest]
    return first + "".join(words) + ("Seconds" if field.endswith("_s") else "")


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_key):
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
    max_jobs: _Whole = 16
    max_run_minutes: Annotated[float, msgspec.Meta(gt=0, le=5_256_000)] | None = None
    cpus_per_gpu: _Whole | None = None
    mem_gb_per_gpu: _Amount | None = None
    cpus: _Whole | None = None
    mem_gb: _Amount | None = None
    gpu_option: Literal["gres", "gpus"] = "gres"
    gpu_types: dict[str, _Amount] = msgspec.field(default_factory=dict[str, float])
    setup: tuple[str, ...] = ()
    python: str | None = None
    as_step: bool = False
    poll_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 15
    lease_s: Annotated[float, msgspec.Meta(ge=6, le=3600)] = 120


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
    """Accept words for a cluster's command, in one text that a shell would split. Raises ValueError, BadCommand for
    one of ours."""
    import shlex  # few use it

    if not isinstance(value, str) or not value.isprintable():
        raise ValueError
    if (ours := _ours(tuple(shlex.split(value)))) is not None:
        raise BadCommand(f"{ours} for the cluster: Backprop sets it itself; leave it out")
    return value.strip() or None


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
