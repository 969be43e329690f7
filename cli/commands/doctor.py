"""`backprop doctor`: checks this installation; with `--repair`, first repairs what recovery can repair alone."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backprop.cli.help.completion import complete_files
from backprop.cli.options.global_options import global_options, globals_of
from backprop.scheduler.config.keys import BY_NAME
from backprop.scheduler.home import layout

if TYPE_CHECKING:
    from backprop.cli.doctor.finding import Finding
    from backprop.cli.options.global_options import Globals

EPILOG = """\b
Each line is ok, note (worth knowing) or BAD, with what to do below it.
Exit codes: 0 nothing is bad, 24 something is.
"""


@click.command(name="doctor", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@click.option(
    "--repair",
    is_flag=True,
    help="First repair what needs no decision. Deletes nothing but lock files of dead workers.",
)
@click.option(
    "--suspend-test",
    is_flag=True,
    help="First have the NVIDIA driver move VRAM to RAM and back. At an idle moment: a bad driver hangs the machine.",
)
@click.option(
    *BY_NAME["on"].flags,
    "cluster",
    metavar="CLUSTER",
    help="Check a cluster instead, with a job of a moment.",
)
@click.option(
    "--bundle",
    metavar="FILE",
    shell_complete=complete_files,
    help="Also write a report to share: versions, checks, settings, last events, ends of logs; credentials masked.",
)
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    as_json: bool,
    repair: bool,
    suspend_test: bool,
    cluster: str | None,
    bundle: str | None,
    config: str | None,
    verbose: bool,
    dry_run: bool,
) -> int:
    """Check this installation and explain what is wrong. Without --repair and --suspend-test it only looks."""
    from backprop.cli.doctor.checkup import examine
    from backprop.cli.doctor.finding import Level
    from backprop.cli.exit_codes import DOCTOR_FOUND
    from backprop.cli.render.json_views import print_json
    from backprop.cli.render.terminal_text import safe

    given = globals_of(ctx, config, verbose, dry_run)
    done: list[str] = []

    tested: list[str] = []

    def say(line: str) -> None:
        done.append(line)
        if not as_json:
            click.echo(f"repair  {safe(line)}")

    def say_tested(line: str) -> None:
        tested.append(line)
        if not as_json:
            click.echo(f"test    {safe(line)}")

    if repair and given.dry_run:
        click.echo("nothing is repaired in a dry run", err=True)
    elif repair:
        _repair(say)
    if suspend_test and given.dry_run:
        click.echo("nothing is tested in a dry run", err=True)
    if cluster is not None:
        findings = _of_cluster(cluster)
    else:
        findings = examine(given.config, say_tested if suspend_test and not given.dry_run else None)
    sound = all(finding.level is not Level.BAD for finding in findings)
    if as_json:
        views = [
            {
                "name": finding.name,
                "level": finding.level.value,
                "told": finding.told,
                "advice": finding.advice,
            }
            for finding in findings
        ]
        print_json({"sound": sound, "repaired": done, "tested": tested, "findings": views})
    else:
        _print(findings)
    if bundle is not None:
        _write_bundle(Path(bundle), findings, given)
    return 0 if sound else DOCTOR_FOUND


def _of_cluster(name: str) -> "list[Finding]":
    from backprop.cli.doctor.cluster import check_cluster
    from backprop.scheduler.config.settings import load

    known = load(None, layout.locate().root, None, {}).settings.clusters
    return check_cluster(name, known.get(name))


def _write_bundle(path: Path, findings: "list[Finding]", given: "Globals") -> None:
    """Write the report, and say so on stderr. Raises BadCommand."""
    from backprop.cli.doctor import bundle
    from backprop.cli.doctor.checkup import settings_here
    from backprop.cli.render.terminal_text import safe

    if given.dry_run:
        click.echo(f"{safe(str(path))} is not written in a dry run", err=True)
        return
    size = bundle.write(path, findings, settings_here(given.config))
    click.echo(f"wrote {safe(str(path))} ({size / 1000:.1f} kB); read it before you share it", err=True)


def _repair(say: Callable[[str], None]) -> None:
    """Close the home to others, make the database sound and complete, and strike off dead workers.

    Workers may be alive meanwhile: the database is set aside under recovery's lock, and a live worker notices that and
    continues with the new one.
    """
    from backprop.scheduler.errors import BackpropError
    from backprop.worker import takeover
    from backprop.worker.maintenance import recovery

    try:
        home = layout.locate()
        if not layout.check(home):
            say(f"{home.root} does not exist yet: nothing to repair")
            return
        mode = home.root.stat().st_mode & 0o777
        layout.ensure(home)
        if mode & 0o077:
            say(f"closed {home.root} to others (it had mode {mode:o})")
        layout.refuse_remote(home.root)
        database = recovery.open_sound(home, say)
        try:
            for worker in takeover.strike_off(home, database, time.time()):
                say(f"worker {worker} is dead: struck off")
        finally:
            database.close()
        for path in takeover.leftovers(home, time.time()):
            with contextlib.suppress(OSError):
                path.unlink()
                say(f"removed {path} of a dead worker")
    except BackpropError as error:
        say(f"not repaired: {error}")
    except OSError as error:
        say(f"not repaired: {error.filename}: {error.strerror}")


def _print(findings: "list[Finding]") -> None:
    from backprop.cli.doctor.finding import Level
    from backprop.cli.render.terminal_text import safe

    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        level = "BAD" if finding.level is Level.BAD else finding.level.value
        click.echo(f"{level:<4}  {finding.name:<{width}}  {safe(finding.told)}")
        if finding.advice is not None:
            click.echo(f"{'':<{width + 8}}{safe(finding.advice)}")
