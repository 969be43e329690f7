"""The `backprop` command group: loads one command's module, runs it, turns refusals into one line and a code.

Exit codes: 0 done, 2 usage, 3-10 refusals (`scheduler/errors.py`), 20-23 outcomes of a followed run
(`cli/exit_codes.py`), 24 the doctor found something bad, 25 a drill did, 130 interrupted. A bug keeps its traceback and
exits 1.
"""

import errno
import importlib
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

import click

from backprop.cli.exit_codes import INTERRUPTED
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.errors import BackpropError, DatabaseBusy

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final = {
    "run": "Queue a training run.",
    "worker": "Start queued runs, one segment after another.",
    "list": "List runs, newest first.",
    "status": "Show host, GPUs, workers and queue, or one run.",
    "show": "Show one run: segments, checkpoints, reason.",
    "why": "Say why a run is waiting, rule by rule.",
    "logs": "Print a run's output.",
    "stop": "Stop runs; they keep their checkpoints.",
    "resume": "Queue runs again, from their last checkpoints.",
    "hold": "Keep queued runs from being started.",
    "release": "Let held runs be started again.",
    "move": "Give waiting runs another place in the queue.",
    "edit": "Change a waiting run's specification in an editor.",
    "drain": "Let no worker start anything; what runs goes on.",
    "undrain": "Let workers start runs again.",
    "config": "Show the effective settings and their sources.",
    "doctor": "Check this installation and explain what is wrong.",
    "drill": "Run, stop and resume a script: can it be chained?",
    "groups": "Show groups, their rules and rankings.",
    "rm": "Remove runs and what is kept of them.",
    "prune": "Remove runs that ended long ago, or compress their logs.",
    "export": "Write runs, segments and metrics for other programs.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "import": "Bring in experiments.json of the npm tool.",
}
MODULES: Final = {"import": "import_"}
"""Of commands whose name Python keeps for itself."""
EPILOG: Final = """\b
Start here:
  backprop run train.py -m 10 -- --lr 3e-4     queue it, ten minutes a segment
  backprop worker                              run what is queued (in tmux)
  backprop list                                see how far everything is
"""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""Of an OSError without a path: an output that is redirected to a full disk."""


class LazyGroup(click.Group):
    """Knows its commands by name and one line; imports the module of the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"backprop.cli.commands.{MODULES.get(cmd_name, cmd_name)}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Click would import every command's module for its help."""
        from click.shell_completion import CompletionItem

        named = [
            CompletionItem(name, help=told) for name, told in COMMANDS.items() if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(
                f"{error.message} The commands are: {', '.join(COMMANDS)}.", ctx
            ) from error


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--config", metavar="PATH", help="Read this project file instead of ./backprop.config.json.")
@click.option("--verbose", is_flag=True, help="Say more about what is done.")
@click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing.")
@click.version_option(package_name="backprop-scheduler", prog_name="backprop")
@click.pass_context
def backprop(ctx: click.Context, config: str | None, verbose: bool, dry_run: bool) -> None:
    """Queue training runs; let a worker run them in timeboxed segments that resume from their checkpoints."""
    ctx.obj = {"config": config, "verbose": verbose, "dry_run": dry_run}


def main() -> None:
    """Entry point of the installed command."""
    _open_streams()
    _leave(run_command(sys.argv[1:]))


def _open_streams() -> None:
    """A standard stream that the shell has closed (`>&-`) takes what is written and gives nothing. Left closed, its
    number would go to the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - for the rest of our life


def _leave(code: int) -> NoReturn:
    """Exit without taking the interpreter apart, object by object: 15 ms, a fifth of what `run` takes. What has to be
    closed has been by now. Not under a debugger or profiler, which have something left to do."""
    watched = sys.gettrace() is not None or sys.getprofile() is not None
    if not watched and threading.active_count() == 1:
        with suppress(OSError, ValueError):  # ValueError: closed since
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    # An output that cannot be written: Python says so, and exits 120.
    sys.exit(code)


def run_command(args: list[str]) -> int:
    """Run one command line; its exit code."""
    try:
        code = backprop.main(args=args or ["--help"], prog_name="backprop", standalone_mode=False)
    except click.UsageError as error:
        return _refuse(_usage(error), error.exit_code)
    except click.ClickException as error:
        return _refuse(error.format_message(), error.exit_code)
    except BackpropError as error:
        return _refuse(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        return _refuse(
            f"cannot write: {error.strerror}; free some space and try again", DatabaseBusy.exit_code
        )
    except SystemExit:
        # Click's answer when the reader of our output has gone (`| head`). That is no failure.
        return 0
    return code if isinstance(code, int) else 0


def _refuse(message: str, code: int) -> int:
    click.echo(f"backprop: {safe(' '.join(message.split()))}", err=True)
    return code


def _usage(error: click.UsageError) -> str:
    where = error.ctx.command_path if error.ctx is not None else "backprop"
    return f"{error.format_message().rstrip('.')}; see: {where} --help"
