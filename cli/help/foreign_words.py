"""Answers commands and options that other queues have, and mistyped ones, with what they are called here."""

import difflib
from collections.abc import Collection
from typing import Final

RUN: Final = "backprop run SCRIPT"
LIST: Final = "backprop list"
LOGS: Final = "backprop logs RUN (-f follows it)"
STOP: Final = "backprop stop RUN"
RESUME: Final = "backprop resume RUN"
TOP: Final = "backprop top"
WORKER: Final = "backprop worker"
GROUPS: Final = "backprop groups"
PAUSE: Final = "backprop suspend RUN, for a live run; backprop hold RUN keeps a queued one from starting"
COMMANDS: Final = {
    **dict.fromkeys(("add", "submit", "sbatch", "enqueue", "qsub", "new", "launch", "train", "exec"), RUN),
    **dict.fromkeys(("ls", "ps", "queue", "squeue", "qstat", "jobs", "runs", "history"), LIST),
    **dict.fromkeys(("log", "tail", "follow", "output", "cat", "attach"), LOGS),
    **dict.fromkeys(("kill", "cancel", "scancel", "qdel", "abort", "interrupt", "end"), STOP),
    **dict.fromkeys(("rerun", "restart", "requeue", "retry", "continue"), RESUME),
    **dict.fromkeys(("watch", "tui", "monitor", "htop"), TOP),
    **dict.fromkeys(("gpus", "gpu", "ginfo", "nvidia-smi", "sinfo"), "backprop status"),
    **dict.fromkeys(("info", "inspect", "describe", "scontrol"), "backprop show RUN"),
    **dict.fromkeys(("delete", "del", "remove", "forget"), "backprop rm RUN"),
    **dict.fromkeys(("clean", "clear", "gc", "purge"), "backprop prune"),
    **dict.fromkeys(("daemon", "serve", "work"), WORKER),
    **dict.fromkeys(("sweep", "grid", "array"), "backprop run --grid lr=1e-3,1e-4 SCRIPT -- --lr {lr}"),
    **dict.fromkeys(("group", "sweeps"), GROUPS),
    **dict.fromkeys(("set", "rename", "change", "modify", "priority", "update"), "backprop edit RUN"),
    **dict.fromkeys(("settings", "configure"), "backprop config"),
    **dict.fromkeys(("first", "next", "switch", "swap"), "backprop move RUN"),
    **dict.fromkeys(("test", "check", "rehearse"), "backprop drill SCRIPT; backprop doctor looks at the installation"),
    **dict.fromkeys(("slots", "concurrency", "limit"), "backprop parallel N"),
    **dict.fromkeys(("stash", "freeze"), "backprop hold RUN"),
    **dict.fromkeys(("reset", "nuke"), "backprop stop RUN, then backprop prune"),
    **dict.fromkeys(("shutdown", "quit"), "backprop drain starts nothing new; Ctrl-C in the worker ends it"),
    **dict.fromkeys(("send", "input"), "nothing: a run has no standard input; backprop logs RUN -f shows its output"),
    **dict.fromkeys(("format-status", "export-status"), "backprop list --json"),
    **dict.fromkeys(("completions", "autocomplete"), "backprop completion bash"),
    "env": "backprop run --env NAME=VALUE SCRIPT",
    "start": f"{WORKER} starts what is queued; backprop release RUN lets a held run start",
    "pause": PAUSE,
    "unhold": "backprop release RUN",
    "web": f"{TOP}; there is no web page",
    "init": f"nothing is to be set up; {RUN}",
    "explain": "backprop why RUN",
}  # fmt: skip
OPTIONS: Final = {
    **dict.fromkeys(("--time", "-t", "--timeout", "--walltime", "--minutes"), ("-m", "-m MINUTES, or -m 1h")),
    **dict.fromkeys(("--gpu", "--gres", "--num-gpus", "-G", "--gpus-per-node"), ("--gpus", "--gpus N")),
    **dict.fromkeys(("--vram", "--gpu-mem", "--gpu-memory"), ("-g", "-g GB, of GPU memory")),
    **dict.fromkeys(("--label", "-J", "--job-name", "--title"), ("--name", "-n NAME")),
    **dict.fromkeys(("--depends", "--dependency", "-d", "--depend"), ("--after", "--after RUN")),
    **dict.fromkeys(("--delay", "--at", "--start"), ("--begin", "--begin TIME, such as 22:00 or +2h")),
    **dict.fromkeys(("--stashed", "--held", "--pause"), ("--hold", "--hold")),
    **dict.fromkeys(("--jobs", "-j", "--workers", "--slots"), ("-p", "-p N")),
    **dict.fromkeys(("--wait", "--watch", "-w"), ("--follow", "--follow")),
    **dict.fromkeys(("--sweep", "--param"), ("--grid", "--grid KEY=V,V")),
    **dict.fromkeys(("--lines", "--tail"), ("-n", "-n N")),
    **dict.fromkeys(("--immediate", "--now", "-i"), ("--priority", "--priority N, or then: backprop move RUN --first")),
    **dict.fromkeys(("--working-directory", "--chdir", "--cwd", "-D"), ("--grid", "cd there first; a run keeps it")),
    **dict.fromkeys(("--print-task-id", "--parsable"), ("--quiet", "--quiet prints the id alone")),
    "-a": ("--after", "--after RUN"),
}  # fmt: skip
"""What is typed → an option that the command must have, and what to say."""
OF_COMMAND: Final = {
    **dict.fromkeys(
        (("status", "--group"), ("status", "-g"), ("top", "--group")), "backprop list --group NAME"
    ),
    **dict.fromkeys(
        (("parallel", "--group"), ("parallel", "-g")), "backprop run --group NAME --parallel N SCRIPT"
    ),
}
"""Options of other queues that another command has here."""
ALIKE: Final = 0.7


def for_command(word: str, known: Collection[str]) -> str | None:
    """Return a line that says what an unknown command is called here; None where nobody can tell."""
    said = COMMANDS.get(word.lower())
    if said is not None:
        return f"No command '{word}'. In Backprop: {said}"
    close = difflib.get_close_matches(word.lower(), [*known, *COMMANDS], 1, ALIKE)
    if not close:
        return None
    meant = f"backprop {close[0]}" if close[0] in known else COMMANDS[close[0]]
    return f"No command '{word}'. Did you mean: {meant}"


def for_option(word: str, known: Collection[str], command: str | None = None) -> str | None:
    """Return what an unknown option is called by a command that has the options `known`; None as above."""
    if (elsewhere := OF_COMMAND.get((command or "", word))) is not None:
        return f"In Backprop: {elsewhere}"
    needed, said = OPTIONS.get(word, ("", ""))
    if needed in known:
        return f"In Backprop: {said}"
    close = difflib.get_close_matches(word, [one for one in known if one.startswith("--")], 1, ALIKE)
    return f"Did you mean: {close[0]}" if close and word.startswith("--") else None
