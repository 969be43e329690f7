"""From a command line to a run in the queue: what exactly is to be executed, where, and within what limits."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from backprop.cli.render.command_text import command_text
from backprop.scheduler.config.settings import Effective, Settings, load
from backprop.scheduler.errors import BadCommand, DatabaseBusy
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import GroupRules, NewRun, QueuePosition, RunSpec

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database
    from backprop.worker.environment.code_snapshot import Code

NAME_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
NAME_LIMIT: Final = 64
KEPT_OF_OURS: Final = ("BACKPROP_HOME", "BACKPROP_ALLOW_REMOTE_HOME")
SCRIPT_SUFFIXES: Final = (".py", ".sh", ".bash")


class SubmissionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for this run alone. `env`: KEY=VALUE texts. `gpus` 0: a CPU run. `recipe`: a name or "none", None
    for what is recognised. `globs`: where it saves, if the user says so."""

    resume_from: str | None = None
    run_id: str | None = None
    name: str | None = None
    env: Sequence[str] = ()
    gpus: int = 1
    exclusive: bool = False
    recipe: str | None = None
    globs: Sequence[str] = ()
    order: Literal["round-robin", "fifo"] = "round-robin"
    keep_when_unmet: bool = False


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A run ready to be queued. `run_id`: the id asked for, None for a new one. `code`: what `--snapshot-code` is to
    copy."""

    run_id: str | None
    name: str
    spec: RunSpec
    environment: Mapping[str, str]
    settings: Settings
    notes: tuple[str, ...]
    code: "Code | None" = None

    @property
    def command(self) -> str:
        return command_text(self.spec)


def submission(
    words: Sequence[str],
    flags: Mapping[str, object],
    option_names: Mapping[str, str],
    config: Path | None,
    home: Home,
    asked: SubmissionRequest,
) -> Submission:
    """Check everything about a new run. Raises BadCommand, BadConfig; writes nothing.

    `words`: SCRIPT and its arguments.
    """
    cwd = _cwd()
    effective = load(cwd, home.root, config, flags, option_names)
    for word in words:
        refuse_undecodable(word)
    if words[0].endswith(".py"):
        argv, program, script = _python(words, cwd, effective.settings.python)
    else:
        argv, program, script = _program(words, cwd)
    spec = spec_of(argv, program, script, cwd, effective, asked)
    environment = environment_of_shell(asked.env)
    code, warned = _code(spec, home, environment) if effective.settings.snapshot_code else (None, ())
    run_id, name = asked.run_id, asked.name
    return Submission(
        run_id=checked("--run-id", run_id) if run_id is not None else None,
        name=checked("--name", name) if name is not None else name_of(script or program),
        spec=spec,
        environment=environment,
        settings=effective.settings,
        notes=(*effective.notes, *warned),
        code=code,
    )


def enqueue(
    home: Home,
    database: "Database",
    wanted: Submission,
    now_s: float,
    place: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
    group: GroupRules | None = None,
) -> str:
    """Write the run's folder, then its row; returns the id. Raises BadCommand when the id is taken, DatabaseBusy.

    In this order a crash leaves a folder without a row, which the next worker's start queues, and never a row without
    its folder.
    """
    from backprop.scheduler.home import run_folder
    from backprop.scheduler.store.writes import enqueue as newruns

    try:
        run_id, folder = run_folder.create(home, wanted.run_id)
    except OSError as error:
        raise no_room(home, error) from error
    try:
        spec = _with_code(wanted, folder)
        run_folder.write_spec(folder, run_id, wanted.name, spec, wanted.environment, now_s, place, group)
        new = NewRun(id=run_id, name=wanted.name, spec=spec, place=place)
        newruns.enqueue_all(database, [new], now_s, group=group)
    except BaseException as error:
        # An interrupt may come just after the commit: then the run is queued and needs its folder.
        if not was_queued(database, run_id, error):
            run_folder.remove(folder)
        if isinstance(error, OSError):
            raise no_room(home, error) from error
        raise
    return run_id


def was_queued(database: "Database", run_id: str, error: BaseException) -> bool:
    """Whether a run got into the queue in spite of `error`. Where the database cannot be asked either, it did not if
    the database itself was what refused it."""
    from backprop.scheduler.store.reads import queries

    try:
        return queries.run_by_id(database, run_id) is not None
    except DatabaseBusy:
        return not isinstance(error, DatabaseBusy)


def _with_code(wanted: Submission, folder: Path) -> RunSpec:
    """The specification, with its code copied into the run's folder if that was asked for. Before spec.json, which
    makes a folder a run. Raises OSError."""
    if wanted.code is None:
        return wanted.spec
    from backprop.worker.environment import code_snapshot

    return msgspec.structs.replace(wanted.spec, code=str(code_snapshot.take(wanted.code, folder)))


def _code(spec: RunSpec, home: Home, environment: Mapping[str, str]) -> "tuple[Code, tuple[str, ...]]":
    from backprop.worker.environment import code_snapshot

    found = code_snapshot.find(spec, home.root)
    return found, code_snapshot.warnings(found, spec, environment)


def no_room(home: Home, error: OSError) -> DatabaseBusy:
    """The refusal for a disk that takes no more."""
    return DatabaseBusy(
        f"a folder for the run cannot be written in {home.runs}: {error.strerror}; nothing was queued; free some space"
        " and try again"
    )


def spec_of(
    argv: tuple[str, ...],
    program: str,
    script: Path | None,
    cwd: Path,
    effective: Effective,
    asked: SubmissionRequest,
) -> RunSpec:
    """A specification with the settings that apply. Raises BadCommand."""
    from backprop.cli.submit.source_reader import DiskReader
    from backprop.scheduler.recipes.plan import plan_for

    settings, sources = effective.settings, effective.sources
    plan = plan_for(argv, program, script, cwd, DiskReader(), asked.recipe, asked.globs, settings.resume_arg)
    grace_s, stop_signal = settings.grace_s, settings.stop_signal
    if sources["grace_s"].layer == "default":
        grace_s = max(grace_s, plan.grace_s or 0.0)
    if sources["stop_signal"].layer == "default":
        stop_signal = plan.stop_signal or stop_signal
    return RunSpec(
        argv=argv,
        program=program,
        cwd=str(cwd),
        umask=umask_of_shell(),
        script=str(script) if script else None,
        framework=settings.framework.value,
        timebox_s=settings.timebox_s,
        grace_s=grace_s,
        stop_signal=stop_signal,
        checkpoint_every_s=settings.checkpoint_every_s,
        auto_resume=settings.auto_resume,
        resume_arg=settings.resume_arg,
        resume_from=_checkpoint(asked.resume_from, cwd),
        gpus=asked.gpus,
        exclusive=asked.exclusive,
        max_segments=settings.max_segments,
        max_total_s=settings.max_total_s,
        overrun_pct=settings.overrun_pct,
        order=asked.order,
        keep_when_unmet=asked.keep_when_unmet,
        retries=settings.retries,
        stop_on_nan=settings.stop_on_nan,
        gpu_memory_limit=settings.gpu_memory_limit,
        gpu_min_vram_mib=settings.gpu_min_vram_mib,
        gpu_min_vram_declared=sources["gpu_min_vram_mib"].layer != "default",
        gpu_max_temp_c=settings.gpu_max_temp_c,
        gpu_probe=settings.gpu_probe.value,
        min_free_ram_mib=settings.min_free_ram_mib,
        max_cpu_load=settings.max_cpu_load,
        max_parallel=None if sources["max_parallel"].layer == "default" else settings.max_parallel,
        checkpoint_roots=tuple(str(root) for root in settings.checkpoint_roots),
        plan=plan,
    )


def _python(words: Sequence[str], cwd: Path, chosen: Path | None) -> tuple[tuple[str, ...], str, Path]:
    script = cwd / words[0]
    if not script.is_file():
        what = "is a directory" if script.is_dir() else "does not exist"
        raise BadCommand(f"{words[0]} {what} in {cwd}; give a .py file, or a program after --")
    python = python_of_shell(chosen, cwd)
    # The whole path stands as argv[0] too: a virtual environment's python finds its packages by it.
    return (python, *words), python, script


def python_of_shell(chosen: Path | None, cwd: Path) -> str:
    """The interpreter asked for, else this shell's `python`, else its `python3`. Raises BadCommand."""
    if chosen is None:
        found = _on_path("python") or _on_path("python3") or _own_python()
    elif (found := _on_path(str(chosen))) is None:
        raise BadCommand(f"--python {chosen} is no program that can be executed")
    return str(cwd / found)


def _on_path(name: str) -> str | None:
    """The program of that name, or at that path; None where there is none. As `shutil.which`, whose module brings every
    compressor there is: 5 ms of each `backprop run`."""
    places = [name] if os.sep in name else [os.path.join(one, name) for one in os.get_exec_path()]  # noqa: PTH118
    return next((path for path in places if Path(path).is_file() and os.access(path, os.X_OK)), None)


def _program(words: Sequence[str], cwd: Path) -> tuple[tuple[str, ...], str, Path | None]:
    first = words[0]
    found = _on_path(str(cwd / first) if os.sep in first else first)
    if found is None:
        path = cwd / first
        if path.is_file():
            raise BadCommand(
                f"{first} is not executable and does not end in .py; chmod +x {first}, or name its interpreter"
            )
        where = f"in {cwd}" if os.sep in first else f"on PATH, nor a script in {cwd}"
        raise BadCommand(f"{first} is not a program {where}")
    program = str(cwd / found)
    named = [cwd / word for word in words if word.endswith(SCRIPT_SUFFIXES)]
    script = next((path for path in named if path.is_file()), None)
    return (program if first.startswith("python") else first, *words[1:]), program, script


def _checkpoint(path: str | None, cwd: Path) -> str | None:
    if path is None:
        return None
    absolute = cwd / path
    if not absolute.exists():
        raise BadCommand(f"--resume-from {path} does not exist in {cwd}")
    return str(absolute)


def environment_of_shell(given: Sequence[str]) -> dict[str, str]:
    """This shell's environment, less what a Backprop around us put there, plus what was given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BACKPROP_") or name in KEPT_OF_OURS
    }
    return kept | env_values(given)


def env_values(given: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts taken apart. Raises BadCommand."""
    found: dict[str, str] = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise BadCommand(f"--env {entry} is not KEY=VALUE")
        found[name] = value
    return found


def checked(option: str, text: str) -> str:
    """A name as it may stand in a file name and on a command line. Raises BadCommand for any other."""
    good = 0 < len(text) <= NAME_LIMIT and set(text) <= NAME_CHARACTERS and text[0] not in ".-"
    if not good:
        raise BadCommand(
            f"{option} {text} is refused: 1 to {NAME_LIMIT} letters, digits, dots, dashes and underscores, beginning"
            " with none of . and -"
        )
    return text


def name_of(path: str | Path) -> str:
    stem = Path(path).stem[:NAME_LIMIT]
    return "".join(char if char in NAME_CHARACTERS else "-" for char in stem).lstrip(".-") or "run"


def refuse_undecodable(word: str) -> None:
    """Raises BadCommand."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise BadCommand(f"{word!r} is not UTF-8; rename it") from error


def _cwd() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise BadCommand("the current directory is gone; cd to one that exists") from error


def umask_of_shell() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _own_python() -> str:
    import sys

    return sys.executable
