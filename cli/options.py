"""The options that set a setting, once: `run`, `worker` and `resume` take their share of this table."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FRAMEWORKS: Final = click.Choice(["pytorch", "tensorflow", "auto"])
PROBES: Final = click.Choice(["auto", "nvidia-smi", "rocm", "none"])

_TABLE: Final[dict[str, tuple[tuple[str, ...], dict[str, Any]]]] = {
    "maxRunMinutes": (("-m", "--max-run-minutes"), {
        "type": float, "metavar": "MINUTES", "help": "Timebox of each segment; fractions allowed.  [default: 10]"}),
    "framework": (("-f", "--framework"), {
        "type": FRAMEWORKS, "help": "What the script is written with.  [default: auto]"}),
    "checkpointEveryMinutes": (("-c", "--checkpoint-every-minutes"), {
        "type": float, "metavar": "MINUTES", "help": "Told to the script as BACKPROP_CHECKPOINT_EVERY_SECONDS."}),
    "gpuMemoryLimit": (("-g", "--gpu-memory-limit"), {
        "metavar": "LIMIT", "help": 'GPU memory to reserve: "80%" of the GPU, or "8" GB.'}),
    "maxParallel": (("-p", "--max-parallel"), {
        "type": int, "metavar": "N", "help": "Start only while fewer than N runs are running.  [default: 2]"}),
    "minFreeRamGB": (("--min-free-ram",), {
        "type": float, "metavar": "GB", "help": "Start only with this much RAM free.  [default: 4]"}),
    "gpu.probe": (("--gpu-probe",), {
        "type": PROBES, "help": "How GPUs are read; none: GPU rules do not apply.  [default: auto]"}),
    "gpu.minFreeVramMB": (("--gpu-min-vram",), {
        "type": int, "metavar": "MB", "help": "Start only on a GPU with this much VRAM free.  [default: 2500]"}),
    "gpu.maxTempC": (("--gpu-max-temp",), {
        "type": int, "metavar": "C", "help": "Keep the GPU below this temperature.  [default: 85]"}),
    "maxCpuLoad": (("--max-cpu-load",), {
        "type": float, "metavar": "LOAD", "help": "Start only below this one-minute load per core.  [default: 4]"}),
    "activeHours": (("--active-hours",), {
        "metavar": "HOURS", "help": 'Start runs only then: "22:00-08:00", "Mon-Fri 19:00-08:00; Sat,Sun 00:00-24:00".'
        "  [default: always]"}),
    "autoResume": (("--auto-resume/--no-auto-resume",), {
        "default": None, "help": "Requeue after each timebox until the run is done.  [default: auto-resume]"}),
    "maxSegments": (("--max-segments",), {
        "type": int, "metavar": "N", "help": "End the chain after N segments."}),
    "maxTotalMinutes": (("--max-total-minutes",), {
        "type": float, "metavar": "MINUTES", "help": "End the chain after this much running time."}),
    "overrunPercent": (("--overrun",), {
        "type": float, "metavar": "PERCENT",
        "help": "A segment may run so much longer until its first checkpoint has landed.  [default: 0]"}),
    "graceSeconds": (("--grace-seconds",), {
        "type": float, "metavar": "S", "help": "Time to save after the stop signal.  [default: 30]"}),
    "stopSignal": (("--stop-signal",), {
        "metavar": "NAME", "help": "Signal that asks the script to save and end.  [default: INT]"}),
    "retries": (("--retries",), {
        "type": int, "metavar": "N", "help": "Start again after a crash, from the last checkpoint.  [default: 0]"}),
    "snapshotCode": (("--snapshot-code/--no-snapshot-code",), {
        "default": None,
        "help": "Run the code as it is now in every segment, whatever is edited later.  [default: no-snapshot-code]"}),
    "stopOnNan": (("--stop-on-nan/--no-stop-on-nan",), {
        "default": None, "help": "End the run as failed once its loss is NaN.  [default: no-stop-on-nan]"}),
    "resumeArg": (("--resume-arg",), {
        "metavar": "TEMPLATE",
        "help": "Words appended on a resume, with {checkpoint} in them; auto: as its recipe says, else --resume-from"
        " PATH if the script's text takes it; none.  [default: auto]"}),
    "python": (("--python",), {
        "metavar": "PATH", "help": "Interpreter for a .py SCRIPT.  [default: this shell's python]"}),
}  # fmt: skip


def _parameter(key: str) -> str:
    return f"setting_{key.replace('.', '_').lower()}"


def setting_options(keys: Iterable[str]) -> Callable[[F], F]:
    """Add the options of these keys, in this order."""

    def add(command: F) -> F:
        for key in reversed(list(keys)):
            names, attributes = _TABLE[key]
            command = click.option(*names, _parameter(key), **attributes)(command)
        return command

    return add


def all_keys() -> list[str]:
    """Those of a run: when runs may start is the worker's affair."""
    return [key for key in _TABLE if key != "activeHours"]


def flags_of(values: Mapping[str, Any]) -> dict[str, object]:
    """The settings given as options, by key, out of a command's parameters."""
    return {key: values[_parameter(key)] for key in _TABLE if values.get(_parameter(key)) is not None}


def option_names() -> dict[str, str]:
    """The option of each key, for messages."""
    return {key: names[-1].partition("/")[0] for key, (names, _) in _TABLE.items()}
