"""Turns a command line into a run ready to be queued: what is executed, where, and within what limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from backprop.cli.render.terminal_text import command_text
from backprop.cli.submit.names import checked, checked_run_name, name_of, refuse_undecodable
from backprop.cli.submit.shell import (
    environment_of_shell,
    resolve_command,
    soft_limits_of_shell,
    umask_of_shell,
)
from backprop.cli.submit.startable import refuse_unstartable
from backprop.scheduler.config.files import current_directory
from backprop.scheduler.config.placement import on_cluster
from backprop.scheduler.config.settings import Effective, Settings, load
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import RunSpec

if TYPE_CHECKING:
    from backprop.cli.submit.interpreter_check import Findings
    from backprop.worker.environment.code_snapshot import Code


class SubmissionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asks for this run alone, beside its settings.

    `env`: KEY=VALUE texts. `gpus`: 0 for a CPU run. `recipe`: a name or "none"; None for the recognised one. `globs`:
    where the run saves, if the user says so. `metric_regex`: NAME=REGEX texts, for its output. `key`, `asked`: see
    `RunSpec`.
    """

    resume_from: str | None = None
    run_id: str | None = None
    name: str | None = None
    env: Sequence[str] = ()
    gpus: int = 1
    exclusive: bool = False
    recipe: str | None = None
    globs: Sequence[str] = ()
    metric_regex: Sequence[str] = ()
    order: Literal["round-robin", "fifo"] = "round-robin"
    keep_when_unmet: bool = False
    key: str | None = None
    asked: str | None = None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A run ready to be queued.

    `run_id`: the id the user asked for, None for a new one. `notes`, `warnings`: for the user, one line each. `code`:
    what --snapshot-code is to copy.
    """

    run_id: str | None
    name: str
    spec: RunSpec
    environment: Mapping[str, str]
    settings: Settings
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    code: "Code | None" = None

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        return command_text(self.spec)


def make_submission(
    words: Sequence[str],
    flags: Mapping[str, object],
    config: Path | None,
    home: Home,
    request: SubmissionRequest,
) -> Submission:
    """Check everything about a new run; write nothing. Raises BadCommand, BadConfig.

    `words`: SCRIPT and its arguments. `flags`: the settings given as options, by key. `config`: the project file to
    read instead of the one in this directory.
    """
    cwd = current_directory()
    effective = load(cwd, home.root, config, flags)
    for word in words:
        refuse_undecodable(word)
    argv, program, script = resolve_command(words, cwd, effective.settings.python)
    for path in (str(cwd), program, request.resume_from or ""):
        refuse_undecodable(path)
    spec = spec_of(argv, program, script, cwd, effective, request)
    environment = environment_of_shell(request.env)
    refuse_unstartable(program, words[0], environment)
    code, notes = _code(spec, home, environment) if effective.settings.snapshot_code else (None, ())
    found = _python(spec, effective.settings, environment)
    if spec.cluster is not None:
        from backprop.cli.submit.cluster_check import check_on_cluster

        notes = (*notes, *check_on_cluster(spec, effective.settings.clusters[spec.cluster]))
    run_id, name = request.run_id, request.name
    return Submission(
        run_id=checked("--run-id", run_id) if run_id is not None else None,
        name=checked_run_name("--name", name) if name is not None else name_of(script or program),
        spec=spec,
        environment=environment,
        settings=effective.settings,
        notes=(*effective.notes, *notes, *found.notes),
        warnings=found.warnings,
        code=code,
    )


def spec_of(
    argv: tuple[str, ...],
    program: str,
    script: Path | None,
    cwd: Path,
    effective: Effective,
    request: SubmissionRequest,
) -> RunSpec:
    """Return the specification of a run with the settings that apply. Raises BadCommand."""
    from backprop.cli.submit.source_reader import DISK
    from backprop.scheduler.recipes.plan import plan_for

    settings, sources = effective.settings, effective.sources
    plan = plan_for(argv, program, script, cwd, DISK, request.recipe, request.globs, settings.resume_arg)
    spec = RunSpec(
        argv=argv,
        program=program,
        cwd=str(cwd),
        umask=umask_of_shell(),
        soft_limits=soft_limits_of_shell(),
        script=str(script) if script else None,
        resume_from=_checkpoint(request.resume_from, cwd),
        gpus=request.gpus,
        exclusive=request.exclusive,
        order=request.order,
        keep_when_unmet=request.keep_when_unmet,
        metric_regex=_patterns(request.metric_regex),
        key=request.key,
        asked=request.asked,
        gpu_min_vram_declared=sources["gpu_min_vram_mib"].layer != "default",
        plan=plan,
        **effective.spec_fields(),
    )
    # The recipe speaks where the user has not.
    if sources["grace_s"].layer == "default":
        spec = msgspec.structs.replace(spec, grace_s=max(spec.grace_s, plan.grace_s or 0.0))
    if sources["stop_signal"].layer == "default" and plan.stop_signal:
        spec = msgspec.structs.replace(spec, stop_signal=plan.stop_signal)
    chosen = sources["timebox_s"].layer in ("flag", "project")
    return on_cluster(spec, settings.clusters, chosen=chosen)


def _patterns(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        return ()
    from backprop.worker.progress.metric_rules import rules_of
    from backprop.worker.progress.pattern_parser import BadPattern

    try:
        rules_of(texts)
    except BadPattern as error:
        raise BadCommand(f"--metric-regex {error}") from None
    return tuple(texts)


def _checkpoint(path: str | None, cwd: Path) -> str | None:
    if path is None:
        return None
    absolute = cwd / path
    if not absolute.exists():
        raise BadCommand(f"--resume-from {path} does not exist in {cwd}")
    return str(absolute)


def _python(spec: RunSpec, settings: Settings, environment: Mapping[str, str]) -> "Findings":
    from backprop.cli.submit.interpreter_check import examine

    return examine(spec, environment, chosen=settings.python is not None)


def _code(spec: RunSpec, home: Home, environment: Mapping[str, str]) -> "tuple[Code, tuple[str, ...]]":
    from backprop.worker.environment import code_snapshot

    code = code_snapshot.find(spec, home.root)
    return code, code_snapshot.warnings(code, spec, environment)
