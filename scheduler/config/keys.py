"""The table of settings: one row says everything about a setting except what it does.

The options of the commands, the text of `backprop edit`, what `backprop resume` may change, the specification of a new
run, the checks of the configuration files and the table in docs/configuration.md are derived from these rows. A new
setting is a row, a typed field of `Settings` and the code that obeys it; one that stays with a run also has a field of
the same name in `RunSpec`.

Names and defaults down to `gpu.maxTempC` are the npm tool's. GB and MB in a key mean 1024 MiB and 1 MiB: what
`nvidia-smi` and `free -h` print.
"""

from typing import Final, Literal

import msgspec

from backprop.scheduler.config import clusters, parsers
from backprop.scheduler.config.choices import AtTimebox, Framework, ProbeKind, Secrets, SignalTo, SuspendRule
from backprop.scheduler.config.parsers import GB_MIB, MINUTE_S, SIGNALS, TEN_YEARS_MIN, Parser
from backprop.scheduler.spec import RunSpec

Command = Literal["run", "worker", "resume", "drill", "edit"]
Section = Literal["Time", "GPU and machine", "Save and resume", "On a cluster", "What it runs"]


class SettingKey(msgspec.Struct, frozen=True):
    """One setting.

    `name`: the key in configuration files. `field`: of `Settings` and, for a setting that stays with a run, of
    `RunSpec`. `default`: in the user's units. `expects`: what a refusal says was expected. `read`: turns a value in the
    user's units into Backprop's, or raises ValueError. `scale`: how many units of the field one of the key's is.
    `nullable`: null is a value too. `user_only`: a project file may not set it. `worker_limit`: a run that does not
    choose a value has none of its own, and the worker's applies.

    `commands`: those that take it as an option; `edit` takes what is `editable`. `flags`: the option's spellings, the
    long one last; empty for none.
    `kind`: the type of the option's value. `metavar`: the value's name in the help. `help`: one sentence, without the
    default. `null_flag`: an option that says null; `null_help`: its help. `no_value`: what the help says the default is
    where `default` is None. `docs`: what docs/configuration.md says, in Markdown, where it says more than `help`.
    `section`: where the help of `run` lists it. `often`: its short help has it.
    """

    name: str
    field: str
    default: object
    expects: str
    read: Parser
    scale: int = 1
    nullable: bool = False
    user_only: bool = False
    worker_limit: bool = False
    commands: tuple[Command, ...] = ()
    flags: tuple[str, ...] = ()
    kind: type[object] = str
    metavar: str | None = None
    help: str = ""
    null_flag: str = ""
    null_help: str = ""
    no_value: str | None = None
    docs: str = ""
    section: Section = "What it runs"
    often: bool = False

    def taken_by(self, command: Command) -> bool:
        """Whether a command has its option; `edit` has those of all that it offers in an editor."""
        return self.editable if command == "edit" else command in self.commands

    @property
    def option(self) -> str | None:
        """The long option for messages: `--auto-resume` of `--auto-resume/--no-auto-resume`; None for none."""
        return self.flags[-1].partition("/")[0] if self.flags else None

    @property
    def stays_with_run(self) -> bool:
        """Whether a run keeps the value that applied when it was queued."""
        return self.field in RunSpec.__struct_fields__

    @property
    def editable(self) -> bool:
        """Whether `backprop edit` offers it: it stays with a run and `run` takes it."""
        return self.stays_with_run and "run" in self.commands


HOOK_EVENTS: Final = ("completed", "failed", "timeboxed", "stopped", "group_finished", "queue_empty")
_MINUTES: Final = f"minutes: a number above 0 and at most {TEN_YEARS_MIN}"
_BOOL: Final = "true or false"

KEYS: Final[tuple[SettingKey, ...]] = (
    SettingKey(
        "maxRunMinutes", "timebox_s", 10, f"{_MINUTES}, or null", parsers.timebox, scale=MINUTE_S,
        commands=("run", "resume"), flags=("-m", "--max-run-minutes"), kind=float, metavar="MINUTES",
        null_flag="--no-timebox", null_help="As --max-run-minutes without an end: no timebox at all.",
        help="Timebox: after this long its turn is over, as --at-timebox says; 10, 90s, 1h30m.",
        docs="timebox: after this long a run's turn is over, see [The end of a timebox](timebox.md); null: never",
        section="Time", often=True,
    ),
    SettingKey(
        "atTimebox", "at_timebox", "auto", "auto or end", parsers.choice(AtTimebox),
        commands=("run", "resume"), flags=("--at-timebox",), kind=AtTimebox,
        help="At a timebox's end: auto stops it only where no work is lost; end stops it in any case.",
        docs="`auto`: a timebox's end stops a run only where no work is lost; `end`: it stops it in any case. See [The"
        " end of a timebox](timebox.md)",
        section="Time",
    ),
    SettingKey(
        "suspend", "suspend", "auto", "auto, always or never", parsers.suspend,
        commands=("run", "resume"), flags=("--suspend",), kind=SuspendRule,
        null_flag="--no-suspend", null_help="As --suspend never.",
        help="Freeze the run at a timebox's end where others wait and an end would lose work.",
        docs="whether a timebox's end freezes a run in place where others wait and an end would lose work: `auto`,"
        " `always` (also where it is likely to notice) or `never`. See [Suspended runs](timebox.md#suspended-runs)",
        section="Time",
    ),
    SettingKey(
        "maxParallel", "max_parallel", 2, "a whole number from 1 to 1024", parsers.whole(1024, low=1),
        worker_limit=True,
        commands=("run", "worker"), flags=("-p", "--max-parallel"), kind=int, metavar="N",
        help="Start only while fewer than N runs are running.",
        section="GPU and machine",
    ),
    SettingKey(
        "gpuMemoryLimit", "gpu_memory_limit", None, 'a share such as "80%" or GB such as "8"', parsers.memory_limit,
        nullable=True,
        commands=("run", "resume", "drill"), flags=("-g", "--gpu-memory-limit"), metavar="LIMIT",
        help='GPU memory to reserve: "80%" of the GPU, or "8" GB.',
        docs='VRAM to reserve per GPU and not to exceed: `"80%"` of the largest GPU here, `"8"` (GB), `"7.5GB"`,'
        ' `"8192MB"`',
        section="GPU and machine", often=True,
    ),
    SettingKey(
        "minFreeRamGB", "min_free_ram_mib", 4, "GB: a number from 0 to 65536", parsers.gigabytes(65536), scale=GB_MIB,
        commands=("run", "drill"), flags=("--min-free-ram",), kind=float, metavar="GB",
        help="Start only with this much RAM free.",
        section="GPU and machine",
    ),
    SettingKey(
        "checkpointEveryMinutes", "checkpoint_every_s", None, f"{_MINUTES}, or null", parsers.minutes, scale=MINUTE_S,
        nullable=True,
        commands=("run", "drill"), flags=("-c", "--checkpoint-every-minutes"), kind=float, metavar="MINUTES",
        help="Ask the script to save this often (via BACKPROP_CHECKPOINT_EVERY_SECONDS).",
        docs="ask the script to save this often; the script decides",
        section="Save and resume",
    ),
    SettingKey(
        "framework", "framework", "auto", "pytorch, tensorflow or auto", parsers.choice(Framework),
        commands=("run", "drill"), flags=("-f", "--framework"), kind=Framework,
        help="The framework that the script uses.",
        docs="`pytorch`, `tensorflow` or `auto`; passed on to the script",
    ),
    SettingKey(
        "gpu.probe", "gpu_probe", "auto", "auto, nvidia-smi, rocm or none", parsers.choice(ProbeKind),
        commands=("run", "worker", "drill"), flags=("--gpu-probe",), kind=ProbeKind,
        help='How to read GPU state ("none" ignores GPUs).',
        docs="how to read GPU state: `auto`, `nvidia-smi`, `rocm`; `none`: no rule about GPUs applies",
        section="GPU and machine",
    ),
    SettingKey(
        "gpu.minFreeVramMB", "gpu_min_vram_mib", 2500, "MB: a whole number from 0 to 1048576",
        parsers.whole(1024 * 1024),
        commands=("run", "drill"), flags=("--gpu-min-vram",), kind=int, metavar="MB",
        help="Start only on a GPU with this much VRAM free.",
        docs="VRAM to reserve per GPU where `gpuMemoryLimit` is not given",
        section="GPU and machine",
    ),
    SettingKey(
        "gpu.maxTempC", "gpu_max_temp_c", 85, "degrees Celsius: a number from 20 to 120", parsers.temperature,
        commands=("run",), flags=("--gpu-max-temp",), kind=int, metavar="C",
        help="Keep the GPU below this temperature.",
        docs="pause at this temperature, start 5 °C below it",
        section="GPU and machine",
    ),
    SettingKey(
        "autoResume", "auto_resume", True, _BOOL, parsers.flag,
        commands=("run", "resume"), flags=("--auto-resume/--no-auto-resume",), kind=bool,
        help="Requeue the run after each timebox until it is done; without, the first one's end stops it.",
        section="Save and resume",
    ),
    SettingKey(
        "maxSegments", "max_segments", None, "a whole number, 1 or more, or null", parsers.whole(10**9, low=1),
        nullable=True,
        commands=("run", "resume"), flags=("--max-segments",), kind=int, metavar="N",
        help="End the chain after N timeboxes.",
        section="Time",
    ),
    SettingKey(
        "maxTotalMinutes", "max_total_s", None, f"{_MINUTES}, or null", parsers.minutes, scale=MINUTE_S,
        nullable=True,
        commands=("run", "resume"), flags=("--max-total-minutes",), kind=float, metavar="MINUTES",
        help="End the chain after this much running time.",
        section="Time",
    ),
    SettingKey(
        "overrunPercent", "overrun_pct", 0, "percent: a number from 0 to 1000", parsers.number(1000),
        commands=("run", "resume"), flags=("--overrun",), kind=float, metavar="PERCENT",
        help="With --at-timebox end: let a segment run up to this much over if it has not saved yet.",
        docs="with `atTimebox` `end`: let a segment run up to this much over if it has not saved yet, see [Where a"
        " segment ends](overnight.md#where-a-segment-ends)",
        section="Time",
    ),
    SettingKey(
        "graceSeconds", "grace_s", 30, "seconds: a number from 0 to 86400", parsers.number(86400),
        commands=("run", "resume", "drill"), flags=("--grace-seconds",), kind=float, metavar="S",
        help="Time to save after the stop signal.",
        section="Time",
    ),
    SettingKey(
        "stopSignal", "stop_signal", "INT", "one of " + ", ".join(SIGNALS), parsers.signal_name,
        commands=("run", "drill"), flags=("--stop-signal",), metavar="NAME",
        help="Signal that asks the script to save and exit.",
        docs="asks the script to save and exit: `INT`, `TERM`, `USR1`, `USR2`, `HUP` or `QUIT`",
        section="Save and resume",
    ),
    SettingKey(
        "signalTo", "signal_to", "trainer", "trainer, leader or group", parsers.choice(SignalTo),
        commands=("run", "resume", "drill"), flags=("--signal-to",), kind=SignalTo,
        help="Who gets the stop signal: what trains, the command's first process, or its group.",
        docs="who gets the stop signal: `trainer`, what trains below a shell script or launcher; `leader`, the"
        " command's first process; `group`, its process group. See [How it is asked to"
        " end](protocol.md#how-it-is-asked-to-end)",
        section="Save and resume",
    ),
    SettingKey(
        "stopOnNan", "stop_on_nan", False, _BOOL, parsers.flag,
        commands=("run",), flags=("--stop-on-nan/--no-stop-on-nan",), kind=bool,
        help="End the run as failed once its loss is NaN.",
        section="Save and resume",
    ),
    SettingKey(
        "smoke", "smoke", False, _BOOL, parsers.flag,
        commands=("run", "resume"), flags=("--smoke/--no-smoke",), kind=bool,
        help="Fail the run, without a retry, unless its first minute gets it to a step or a checkpoint.",
        docs="a run has to get to a step or a checkpoint in its first minute, see [The first"
        " minute](timebox.md#the-first-minute)",
        section="Time",
    ),
    SettingKey(
        "smokeSeconds", "smoke_s", 60, "seconds: a number above 0 and at most 86400", parsers.number(86400, above=True),
        commands=("run", "resume"), flags=("--smoke-seconds",), kind=float, metavar="S",
        help="With --smoke: how long it may take.",
        docs="with `smoke`: how long it may take",
        section="Time",
    ),
    SettingKey(
        "watchdog", "watchdog", True, _BOOL, parsers.flag,
        commands=("run", "resume"), flags=("--watchdog/--no-watchdog",), kind=bool,
        help="End a segment that hangs, and go on from its last checkpoint.",
        docs="end a segment that hangs, and go on from its last checkpoint, see [A run that"
        " hangs](scripts.md#a-run-that-hangs)",
        section="Save and resume",
    ),
    SettingKey(
        "keepCheckpoints", "keep_checkpoints", None, "a whole number from 1 to 16, or null",
        parsers.checkpoints_kept, nullable=True, user_only=True, no_value="all",
        commands=("run", "resume"), flags=("--keep-checkpoints",), kind=int, metavar="N",
        null_flag="--keep-all-checkpoints", null_help="Remove no checkpoint.",
        help="Remove its older checkpoints: all but the newest N, the best, and those in use.",
        docs="remove a run's older checkpoints, but the newest N, the best, and those in use; null: remove none. See"
        " [Keeping the newest](checkpoints.md#keeping-the-newest)",
        section="Save and resume",
    ),
    SettingKey(
        "keepMetric", "keep_metric", None, "NAME, NAME:min or NAME:max, or null", parsers.metric,
        nullable=True, no_value="loss, lowest first",
        commands=("run", "resume"), flags=("--keep-metric",), metavar="NAME[:max]",
        help="With --keep-checkpoints: the metric whose best checkpoint is kept.",
        docs="with `keepCheckpoints`: the metric whose best checkpoint is kept, `val_acc:max`",
        section="Save and resume",
    ),
    SettingKey(
        "retries", "retries", 0, "a whole number from 0 to 1000", parsers.whole(1000),
        commands=("run", "resume"), flags=("--retries",), kind=int, metavar="N",
        help="Start again after a crash, up to N times, from the last checkpoint.",
        section="Save and resume", often=True,
    ),
    SettingKey(
        "activeHours", "active_hours", None, '"22:00-08:00", "Mon-Fri 19:00-08:00", a list of such, or null for always',
        parsers.active_hours, nullable=True, no_value="always",
        commands=("worker",), flags=("--active-hours",), metavar="HOURS",
        help='Start runs only in these hours: "22:00-08:00", "Mon-Fri 19:00-08:00; Sat,Sun 00:00-24:00".',
        docs='the worker starts runs only in these hours: `"22:00-08:00"`, `["Mon-Fri 19:00-08:00", "Sat,Sun'
        ' 00:00-24:00"]`; null: always. See [Hours](order.md#hours)',
    ),
    SettingKey(
        "secrets", "secrets", Secrets.KEEP.value, "keep or scrub", parsers.choice(Secrets),
        commands=("run", "resume"), flags=("--secrets",), kind=Secrets,
        help="What becomes of stored credentials once the run has ended: scrub removes their values.",
        docs="`scrub`: once a run has ended, values of variables that look like credentials are removed from what is"
        " stored of it, see [Credentials](scripts.md#credentials)",
    ),
    # High on purpose: data workers of the user's own runs keep a healthy machine at 1 to 2 per core. Four runnable
    # processes per core, for a whole minute, is a machine in trouble.
    SettingKey(
        "maxCpuLoad", "max_cpu_load", 4.0, "load per core: a number above 0 and at most 1000",
        parsers.number(1000, above=True),
        commands=("run", "drill"), flags=("--max-cpu-load",), kind=float, metavar="LOAD",
        help="Start only below this one-minute load per core.",
        section="GPU and machine",
    ),
    SettingKey(
        "snapshotCode", "snapshot_code", False, _BOOL, parsers.flag, user_only=True,
        commands=("run", "resume"), flags=("--snapshot-code/--no-snapshot-code",), kind=bool,
        help="Run the code as it is now in every segment, whatever is edited later.",
        docs="run the code as it was when queued, see [The code it runs](protocol.md#the-code-it-runs)",
        section="Save and resume",
    ),
    SettingKey(
        "inhibitSleep", "inhibit_sleep", True, _BOOL, parsers.flag, user_only=True,
        commands=("worker",), flags=("--inhibit-sleep/--no-inhibit-sleep",), kind=bool,
        help="Keep the machine from going to sleep by itself while runs are live.",
    ),
    SettingKey(
        "minFreeDiskGB", "min_free_disk_mib", 1, "GB: a number from 0 to 1048576", parsers.gigabytes(1024 * 1024),
        scale=GB_MIB, docs="start only with this much room in the home's file system",
    ),
    SettingKey(
        "maxSuspended", "max_suspended", 4, "a whole number from 0 to 1024", parsers.whole(1024),
        docs="so many runs may be suspended at once by the ends of their timeboxes",
    ),
    SettingKey(
        "maxSuspendedRamGB", "max_suspended_ram_mib", None, "GB: a number from 0 to 65536, or null",
        parsers.gigabytes(65536), scale=GB_MIB, nullable=True, no_value="half of the RAM",
        docs="so much RAM may suspended runs keep together; null: half of what this machine has",
    ),
    SettingKey(
        "resumeArg", "resume_arg", "auto", "auto, none, or a text with {checkpoint}", parsers.resume_arguments,
        user_only=True,
        commands=("run", "resume", "drill"), flags=("--resume-arg",), metavar="TEMPLATE",
        help="Arguments to append on a resume, with {checkpoint} in them; auto: as the recipe says, else --resume-from"
        " PATH if the script takes it; none.",
        docs="see [Resuming](protocol.md#resuming)",
        section="Save and resume",
    ),
    SettingKey(
        "integrations", "integrations", True, _BOOL, parsers.flag,
        commands=("run", "resume", "drill"), flags=("--integrations/--no-integrations",), kind=bool,
        help="Attach our callback to a known framework where the script shows no way to resume.",
        docs="attach our callback to a known framework where the script shows no way to resume, see [Attached at"
        " launch](integrations.md#attached-at-launch)",
        section="Save and resume",
    ),
    SettingKey(
        "python", "python", None, "an absolute path, or null", parsers.absolute_path,
        nullable=True, user_only=True, no_value="this shell's python",
        commands=("run", "drill"), flags=("--python",), metavar="PATH",
        help="Interpreter for a .py SCRIPT.",
        docs="interpreter for `.py` scripts, an absolute path",
    ),
    *(
        SettingKey(
            f"hooks.{event}", f"hook_{event}", None, "a command line, or null", parsers.text,
            nullable=True, user_only=True, docs="a command to run then, see [Hooks](hooks.md)",
        )
        for event in HOOK_EVENTS
    ),
    SettingKey(
        "clusters", "clusters", {}, "an object of clusters, each with its engine and folder", clusters.clusters,
        user_only=True, docs="clusters whose jobs may be segments, see [On a cluster](cluster.md)",
    ),
    SettingKey(
        "on", "cluster", clusters.HERE, "here, or the name of a cluster", clusters.cluster_name, nullable=True,
        commands=("run", "resume"), flags=("--on",), metavar="CLUSTER",
        help="Run its segments as jobs of this cluster, see docs/cluster.md.",
        docs="where segments run: `here`, or the name of one of `clusters`",
        section="On a cluster",
    ),
    SettingKey(
        "cpus", "cpus", None, "a whole number from 1 to 4096, or null", parsers.whole(4096, low=1), nullable=True,
        no_value="the cluster's",
        commands=("run", "resume"), flags=("--cpus",), kind=int, metavar="N",
        help="With --on: CPUs of each job.",
        section="On a cluster",
    ),
    SettingKey(
        "memGB", "mem_mib", None, "GB: a number from 0.001 to 65536, or null", parsers.gigabytes(65536), scale=GB_MIB,
        nullable=True, no_value="the cluster's",
        commands=("run", "resume"), flags=("--mem",), kind=float, metavar="GB",
        help="With --on: RAM of each job.",
        section="On a cluster",
    ),
    SettingKey(
        "gpuType", "gpu_type", None, "a name, or null", parsers.name, nullable=True, no_value="any",
        commands=("run", "resume"), flags=("--gpu-type",), metavar="NAME",
        help="With --on: type of its GPUs, as the cluster calls it.",
        section="On a cluster",
    ),
    SettingKey(
        "submit", "submit", None, "words for the cluster's command, or null", clusters.engine_words, nullable=True,
        user_only=True, no_value="none",
        commands=("run", "resume"), flags=("--submit",), metavar="WORDS",
        help="With --on: further options of sbatch, such as '--qos=long --constraint=a100'.",
        section="On a cluster",
    ),
    SettingKey(
        "checkpointRoots", "checkpoint_roots", (), "a list of absolute paths", parsers.absolute_paths,
        user_only=True, docs="further folders in which checkpoints are accepted",
    ),
)  # fmt: skip
BY_NAME: Final = {key.name: key for key in KEYS}
# The npm tool takes its RAM floor inside `gpu` too.
ALIASES: Final = {"gpu.minFreeRamGB": "minFreeRamGB"}
# Keys of the npm tool that say what to run: a file in a checkout must not, but an old file goes on working.
IGNORED: Final = {
    "trainingScriptPath": "names no command; give SCRIPT",
    "runId": "names no run; its id is given when it is queued",
    "resumeFrom": "names no checkpoint; give --resume-from",
    "name": "names no run; give --name",
}
