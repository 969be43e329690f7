"""The `backprop` command group: loads one command's module, runs it, turns refusals into one line and a code.

Exit codes: 0 done, 2 usage, 3-11 refusals (`scheduler/errors.py`), 20-23 outcomes of a run that was
followed or waited for (`cli/exit_codes.py`), 24 the doctor found something bad, 25 a drill did, 26 done but the output
is lost, 124 still going, 130 interrupted. A bug keeps its traceback and exits 1.
"""

import errno
import importlib
import io
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from backprop.cli.exit_codes import INTERRUPTED, OUTPUT_LOST
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.errors import BackpropError, DatabaseBusy

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final = {
    "run": "Queue a training run.",
    "worker": "Start queued runs, one segment after another.",
    "list": "List runs, newest first.",
    "top": "Watch GPUs, running and next runs on a live screen.",
    "status": "Show the machine, the workers and the queue, or one run.",
    "show": "Show one run: segments, checkpoints, reason.",
    "diff": "Show in what two runs differ: code, arguments, packages.",
    "why": "Explain why a run is waiting, rule by rule.",
    "logs": "Print a run's output.",
    "wait": "Wait for runs to end; the exit code says how.",
    "stop": "Stop runs; they keep their checkpoints.",
    "resume": "Queue runs again, from their last checkpoints.",
    "suspend": "Freeze live runs in place; they keep their memory.",
    "unsuspend": "Let suspended runs go on in their turn.",
    "hold": "Hold queued runs.",
    "release": "Release held runs.",
    "move": "Move waiting runs within the queue.",
    "edit": "Change waiting runs by options, or one in an editor.",
    "drain": "Stop starting new runs; running ones continue.",
    "undrain": "Start runs again after a drain.",
    "clusters": "Show the clusters that runs may go to.",
    "parallel": "Change how many runs may run at once.",
    "config": "Show the effective settings and their sources.",
    "doctor": "Check this installation and explain what is wrong.",
    "report": "Show what became of the night: text, or one HTML file.",
    "plot": "Draw the loss or another metric in the terminal.",
    "drill": "Test that a script saves and resumes (about a minute).",
    "groups": "Show the progress, rules and rankings of groups.",
    "rm": "Delete runs and their logs (never your checkpoints).",
    "prune": "Delete runs that ended long ago, or compress their logs.",
    "export": "Write runs, segments and metrics for other programs.",
    "mcp": "Serve the commands as tools to an agent (MCP).",
    "service": "Run the worker as a systemd user service.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "import": "Import runs from the npm version.",
    "help": "Show the help of a command, or all commands.",
}
SECTIONS: Final = {
    "Start": ("run", "worker", "drill"),
    "Look": ("list", "top", "status", "show", "logs", "wait", "why", "diff", "report", "plot", "clusters"),
    "Change": (
        "stop",
        "resume",
        "suspend",
        "unsuspend",
        "hold",
        "release",
        "move",
        "edit",
        "drain",
        "undrain",
        "parallel",
    ),
    "Sweeps": ("groups", "export"),
}
REST: Final = "Care"
"""Where the other commands are listed."""
MODULES: Final = {"import": "import_"}
"""Modules of commands whose name is a keyword of Python."""
EXAMPLES: Final = (
    ("backprop run train.py -m 10 -- --lr 3e-4", "queue it, in 10-min boxes"),
    ("backprop run --grid lr=1,2 train.py -- --lr {lr}", "queue one per value"),
    ("backprop worker", "run it all (in tmux)"),
    ("backprop list", "see progress"),
)
STUCK_S: Final = 1.0
USAGE: Final = "usage"
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""In an OSError without a path: the output is redirected to a full disk."""


class LazyGroup(click.Group):
    """Lists its commands by name and one line, and imports only the module of the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"backprop.cli.commands.{MODULES.get(cmd_name, cmd_name)}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is not a click command")
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show examples first, then the commands by what one wants to do, then the few options."""
        with formatter.section("Examples"):
            formatter.write_dl(EXAMPLES, col_max=60)
        with formatter.section("Commands"):
            formatter.write_dl([(title, ", ".join(names)) for title, names in _sections().items()])
        click.Command.format_options(self, ctx, formatter)

    def format_all_commands(self, formatter: click.HelpFormatter) -> None:
        """Show every command with what it does."""
        for title, names in _sections().items():
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name]) for name in names])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete without importing every command's module for its help, as Click would."""
        from click.shell_completion import CompletionItem

        matches = [
            CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)
        ]
        return matches + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if not args or args[0].startswith("-"):
                raise
            from backprop.cli.help import foreign_words

            said = foreign_words.for_command(args[0], COMMANDS)
            said = said or f"No such command '{args[0]}'. The commands are: {', '.join(COMMANDS)}."
            raise click.UsageError(said, ctx) from error


def _sections() -> dict[str, tuple[str, ...]]:
    named = {name for names in SECTIONS.values() for name in names}
    return {**SECTIONS, REST: tuple(name for name in COMMANDS if name not in named)}


@click.group(
    cls=LazyGroup,
    epilog="What each one does: backprop help; all about one: backprop help COMMAND.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--config", metavar="PATH", help="Read this project file instead of ./backprop.config.json.")
@click.option("--verbose", is_flag=True, help="Say more about what is done.")
@click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing.")
@click.version_option(None, "-V", "--version", package_name="backprop-scheduler", prog_name="backprop")
@click.pass_context
def backprop(ctx: click.Context, config: str | None, verbose: bool, dry_run: bool) -> None:
    """Run your training queue overnight: timeboxed, checkpointed, resumed automatically."""
    ctx.obj = {"config": config, "verbose": verbose, "dry_run": dry_run}


def main() -> None:
    """Run the command line of this process and exit."""
    _take_names_as_utf8()
    _open_streams()
    _leave(run_command(sys.argv[1:]))


def _take_names_as_utf8() -> None:
    """Begin again with file names in UTF-8 where the locale has another encoding: a path that was queued in one
    terminal has to mean the same file to a worker in any other."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _open_streams() -> None:
    """Open standard streams that the shell has closed (`>&-`) on /dev/null. Left closed, their numbers would go to the
    next files that are opened. What the encoding of a stream lacks is written as an escape."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> NoReturn:
    """Exit without the interpreter's teardown, which takes 15 ms, a fifth of `run`. All that has to be closed is closed
    by now. Under a debugger or profiler, exit in the ordinary way."""
    watched = sys.gettrace() is not None or sys.getprofile() is not None
    alone = threading.active_count() == 1
    if not watched and (alone or _is_stuck()):
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            if alone:
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    # When an output cannot be written, Python reports it and exits 120.
    sys.exit(code)


def _is_stuck() -> bool:
    """Return whether a thread that prints waits for a terminal that takes nothing. The interpreter's teardown would
    wait with it. Where no thread is to be had to find out, assume that none waits."""

    def flush() -> None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()

    thread = threading.Thread(target=flush, daemon=True)
    with suppress(RuntimeError):
        thread.start()
        thread.join(STUCK_S)
    return thread.is_alive()


def run_command(args: list[str]) -> int:
    """Run one command line, and print its answer where that is wanted as JSON; return its exit code."""
    answer = answers.start(args)
    code = _run(args)
    if (text := answer.text(code)) is None:
        return code
    try:
        click.echo(text)
    except BrokenPipeError:
        return code
    except OSError as error:
        if code == 0:  # what was refused is on stderr already
            lost = f"{answer.verb}: done, do not repeat it; its output cannot be written: {error.strerror}"
            return _refuse(lost, OUTPUT_LOST, "output-lost")
    return code


def _run(args: list[str]) -> int:
    try:
        code = backprop.main(args=args or _bare(), prog_name="backprop", standalone_mode=False)
    except click.UsageError as error:
        return _refuse(_usage(error), error.exit_code, USAGE)
    except click.ClickException as error:
        return _refuse(error.format_message(), error.exit_code, USAGE)
    except DatabaseBusy as error:
        from backprop.cli.context import silent_workers
        from backprop.scheduler.home import layout

        # One that was frozen in the middle of a transaction keeps everybody out.
        with suppress(BackpropError):
            return _refuse(
                "; ".join([str(error), *silent_workers(layout.locate())]), error.exit_code, error.code
            )
        return _refuse(str(error), error.exit_code, error.code)
    except BackpropError as error:
        return _refuse(str(error), error.exit_code, error.code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        told = _trouble_with(error)
        if told is None:
            raise
        return _refuse(told, DatabaseBusy.exit_code, "unusable-file")
    except UnicodeEncodeError:
        # Neither the database nor JSON takes a byte that is not UTF-8. What was begun with it was undone on the way.
        word = next((word for word in args if not _is_utf8(word)), None)
        if word is None:
            raise
        return _refuse(
            f"{word!r} is not UTF-8, and nothing here has such a name", click.UsageError.exit_code, USAGE
        )
    except SystemExit:
        # Click exits when the reader of the output is gone (`| head`). That is not a failure.
        return 0
    return code if isinstance(code, int) else 0


def _bare() -> list[str]:
    """Return what `backprop` alone means: a look at the queue where there is one, else help."""
    from backprop.scheduler.home import layout

    with suppress(BackpropError, OSError):
        if layout.locate().database.exists():
            return ["top", "--once"]
    return ["--help"]


def _trouble_with(error: OSError) -> str | None:
    """Return in words what keeps a command from a file of ours, or from its output; None for what may be a bug."""
    from backprop.scheduler.home import layout

    if error.filename is None:
        full = error.errno in FULL
        return f"cannot write: {error.strerror}; free some space and try again" if full else None
    with suppress(BackpropError, ValueError):
        path = Path(os.fsdecode(error.filename))
        if path.is_relative_to(layout.locate().root):
            return f"{path} cannot be used now: {error.strerror}; look at it, or try again later"
    return None


def _is_utf8(word: str) -> bool:
    """Whether an argument is text: Python keeps other bytes as lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in word)


def _refuse(message: str, exit_code: int, code: str) -> int:
    """`code`: what the refusal is called in JSON."""
    line = " ".join(message.split())
    answers.current().fail(code, exit_code, line)
    click.echo(f"backprop: {safe(line)}", err=True)
    return exit_code


def _usage(error: click.UsageError) -> str:
    said = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        from backprop.cli.help import foreign_words

        # Not what click guesses: it takes any option that looks a little alike.
        known = [name for one in error.ctx.command.get_params(error.ctx) for name in one.opts]
        answer = foreign_words.for_option(error.option_name, known, error.ctx.command.name)
        said = f"No such option: {error.option_name}" + (f". {answer}" if answer else "")
    where = error.ctx.command_path if error.ctx is not None else "backprop"
    return f"{said}; see: {where} --help"
