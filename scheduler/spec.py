"""Defines what the user asked for: the specification of a run as it was queued, its place, and its group's rules.

The specification goes into the database without the environment, and into the run's own folder together with it (see
`home.run_folder`).
"""

from typing import Final, Literal

import msgspec

NO_TIMEBOX_S: Final = 631_152_000.0
"""The timebox of a run that has none: twenty years, twice the longest that can be given."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a script that announces nothing is chained: worked out when it is queued, kept with the run.

    `recipe`: its name in docs/recipes.md, "none" for none. `why`: what it was recognised by, in words.
    `globs`: absolute patterns, as `glob.glob(recursive=True)` takes them, of its checkpoints (files or directories).
    `needs`: patterns of files that must be inside a checkpoint directory for it to be whole.
    `in_place`: the trainer overwrites its checkpoint, so that a good one has to be copied aside.
    `resumes`: "append" (`resume_words` are added on a resume), "rerun" (the same command finds its checkpoint itself),
    "none" (it cannot resume), "unknown". `resume_words`: words with {checkpoint} in them. `resume_at`: their index in
    argv, None for its end.
    `step_pattern`: a regular expression whose first group is the step in a checkpoint's name.
    `saves_on_signal`: it saves when asked to stop, so that a timebox need not end right after a save.
    `stop_signal` (a name without SIG), `grace_s` (the least seconds): what suits it where the user gave none.
    `reads_deadline`: its text names BACKPROP_DEADLINE, a number that can't move.
    `integration`: the framework whose integration is attached at launch, since the text shows no way to resume; "" for
    none.
    `expects`: patterns, as `globs`, of where its text says that it saves: they tell runs of one script apart, and name
    no checkpoint.
    `guessed`: its option to resume is known by its name alone; a segment that starts over all the same is left alone.
    `speaks`: what of our protocol stands in its text, the first of: "option" (it declares `--resume-from`), "events"
    (it announces its checkpoints), "variable" (it reads BACKPROP_RESUME_FROM).
    `fragile`: what in its text would notice that it stood still, in words; "" for nothing.
    `note`: what the user should know, in words.
    """

    recipe: str = "none"
    why: str = ""
    globs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    in_place: bool = False
    resumes: Literal["append", "rerun", "none", "unknown"] = "unknown"
    resume_words: tuple[str, ...] = ()
    resume_at: int | None = None
    step_pattern: str | None = None
    saves_on_signal: bool = False
    stop_signal: str | None = None
    grace_s: float | None = None
    reads_deadline: bool = False
    fragile: str = ""
    note: str = ""
    guessed: bool = False
    expects: tuple[str, ...] = ()
    speaks: Literal["option", "events", "variable", ""] = ""
    integration: str = ""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run as queued. Times in seconds, memory in MiB, temperatures in °C.

    `argv`: the command as the user wrote it, interpreter first. `program`: the absolute path that is executed
    for argv[0]. `cwd`: absolute. `soft_limits`: of its shell, by name ("NOFILE"), -1 for no limit.
    `script`: absolute path of the script in argv, if one was recognised.
    `plan`: for a script that announces nothing. `signal_to`: a value of `choices.SignalTo`. `overrun_pct`: the
    percentage of its timebox by which a segment may run over until its first checkpoint. `code`: absolute path of the
    code as it was when queued. `order`: after a segment the run goes to the back of the queue ("round-robin") or keeps
    its turn ("fifo"). `at_timebox`: a value of `choices.AtTimebox`. `suspend`: one of `choices.SuspendRule`.
    `keep_when_unmet`: the run stays queued when a dependency can never be met. `metric_regex`: the user's own patterns
    for its output, NAME=REGEX. `integrations`: ours may be attached at launch. `smoke`: it has to get to a step or a
    checkpoint within its first `smoke_s` of running time. `watchdog`: a segment that hangs is ended. `params`: what
    sets it apart from the other runs of its sweep, by key. `key`: its user's own name for this submission, which no
    other run has; `asked`: a digest of what was asked for with it. `cluster`: whose jobs its segments are, None for
    this machine; `share`: absolute path of the folder that its nodes see, where the run's folder lies. `cpus`,
    `mem_mib`, `gpu_type`: of each job. `submit`: further words for the cluster's command. `keep_checkpoints`: so
    many of its checkpoints are kept, see `worker.checkpoints.rotation`, and the best by `keep_metric`, NAME or
    NAME:max. `secrets`: a value of `choices.Secrets`.
    None means "no such limit" (`max_*`), "the worker's own" (governor limits), or "not asked for".
    """

    argv: tuple[str, ...]
    program: str
    cwd: str
    umask: int = 0o022
    soft_limits: dict[str, int] = {}
    script: str | None = None
    framework: str = "auto"
    timebox_s: float = 600.0
    grace_s: float = 30.0
    stop_signal: str = "INT"
    signal_to: str = "trainer"
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
    plan: Plan | None = None
    overrun_pct: float = 0.0
    code: str | None = None
    order: Literal["round-robin", "fifo"] = "round-robin"
    stop_on_nan: bool = False
    smoke: bool = False
    smoke_s: float = 60.0
    keep_when_unmet: bool = False
    metric_regex: tuple[str, ...] = ()
    at_timebox: str = "auto"
    suspend: str = "auto"
    integrations: bool = True
    params: dict[str, str] = {}
    key: str | None = None
    asked: str | None = None
    watchdog: bool = True
    cluster: str | None = None
    share: str | None = None
    cpus: int | None = None
    mem_mib: int | None = None
    gpu_type: str | None = None
    submit: str | None = None
    keep_checkpoints: int | None = None
    keep_metric: str | None = None
    secrets: str = "keep"

    @property
    def attaches(self) -> bool:
        """Whether it is started with our integrations: where nothing else is known to resume it with."""
        plan = self.plan
        if plan is None or not self.integrations or self.resume_arg != "auto" or plan.speaks:
            return False
        return bool(plan.integration) or plan.resumes == "unknown"

    @property
    def cannot_resume(self) -> bool:
        """Whether it is known that it can't go on from a checkpoint."""
        return self.plan is not None and self.plan.resumes == "none" and not self.attaches


DependencyKind = Literal["success", "any", "fail"]
"""The parent has to complete, to end, or to end in another way than completed."""


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a run stands in the queue when it is queued.

    `priority`: higher first. `begin_s`: Unix seconds before which it is not started. `after`: (parent's id, kind) of
    each dependency. `held`: it waits for a release.
    """

    priority: int = 0
    begin_s: float = 0.0
    group: str | None = None
    array_index: int | None = None
    after: tuple[tuple[str, DependencyKind], ...] = ()
    held: bool = False


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run that is about to be queued."""

    id: str
    name: str
    spec: RunSpec
    place: QueuePosition = QueuePosition()


class GroupRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rules for the members of a group. None: no such rule.

    `max_parallel`: members that may run at once. After every `keep_every` segments of each member, the share
    `keep_share` (0 to 1) with the lowest `keep_metric` goes on, with the highest if `keep_highest`. `until`: once a
    metric of a member meets this goal the others are stopped, see `outcome.group_budget`. `max_total_s`: once its
    members have run for so long together all are.
    """

    name: str
    max_parallel: int | None = None
    keep_share: float | None = None
    keep_every: int | None = None
    keep_metric: str | None = None
    keep_highest: bool = False
    until: str | None = None
    max_total_s: float | None = None


def encode(spec: RunSpec) -> str:
    """Return the specification as one line of JSON, for the database."""
    return msgspec.json.encode(spec).decode()


def decode(text: str | bytes) -> RunSpec:
    """Return the specification that `encode` wrote. Raises msgspec.DecodeError on any other text."""
    return msgspec.json.decode(text, type=RunSpec)


def created_s(now_s: float, number: int) -> float:
    """Return when a run was created (Unix seconds): the `number`-th of those queued together at `now_s`, from 0.

    Each gets a microsecond more than the one before, so that they keep their order.
    """
    return now_s + number * 1e-6
