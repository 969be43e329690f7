"""`backprop service`: makes a worker a service of the user's systemd, which starts it at every boot."""

from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import tell
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from backprop.cli.service.systemd import ServiceState

EPILOG: Final = """\b
Examples:
  backprop service install              write ~/.config/systemd/user/backprop.service and start it
  backprop service install -- -p 4      a worker that runs four at once
  journalctl --user -u backprop -f      its lines
  backprop service remove               stop it; running segments save and are requeued
"""
LINGER: Final = (
    "it ends with your last logout, and all runs with it; to keep it going: loginctl enable-linger"
)


@click.command(name="service", epilog=EPILOG)
@click.argument("action", type=click.Choice(["install", "remove", "status"]))
@click.argument("worker_options", nargs=-1, metavar="[-- WORKER_OPTIONS...]")
@verb_options
@click.pass_context
def command(
    ctx: click.Context,
    action: str,
    worker_options: tuple[str, ...],
    config: str | None,
    verbose: bool,
    dry_run: bool,
) -> None:
    """Run the worker as a systemd user service: install it, remove it, or show its status.

    No root is needed. The service starts at boot if your user lingers, and starts again after a crash. Stopping or
    upgrading it never ends a segment without a chance to save.
    """
    from backprop.cli.service import systemd

    if worker_options and action != "install":
        raise click.UsageError(f"{action} takes no options of the worker")
    given = globals_of(ctx, config, verbose, dry_run)
    if action == "status":
        _show(systemd.state())
    elif action == "remove":
        path = systemd.unit_path()
        if given.dry_run:
            click.echo(f"would stop the worker and delete {safe(str(path))}")
            return
        tell(f"stopped the worker; removed {safe(str(systemd.remove()))}")
    else:
        text = systemd.planned(_checked(worker_options))
        if given.dry_run:
            click.echo(f"would write {safe(str(systemd.unit_path()))} and start it:\n\n{text.rstrip()}")
            return
        tell(f"started; the unit is {safe(str(systemd.install(text)))}")
        _say_lingers(systemd.lingers())


def _checked(words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what `backprop worker` would refuse: systemd would start it again and again. Raises UsageError."""
    from backprop.cli.commands.worker import command as worker

    worker.make_context("backprop worker", list(words))
    return words


def _show(state: "ServiceState") -> None:
    answers.current().more = {
        "service": {
            "unit": str(state.path),
            "installed": state.installed,
            "active": state.active or None,
            "enabled": state.enabled or None,
            "lingers": state.lingers,
        }
    }
    if not state.installed:
        click.echo("not installed; install it: backprop service install")
        return
    click.echo(f"{state.active}, {state.enabled}: {safe(str(state.path))}")
    _say_lingers(state.lingers)


def _say_lingers(lingers: bool | None) -> None:
    if lingers is False:
        answers.current().note(LINGER)
        click.echo(f"note: {LINGER}", err=True)
