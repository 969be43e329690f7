"""`backprop edit RUN…`: changes waiting runs by options, or one of them in an editor."""

import contextlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import need_existing, say_code_changes, tell
from backprop.cli.options import run_selection, setting_options
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.options.numbers import MOST_GPUS, MOST_PRIORITY, whole
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backprop.cli.submit.edit_text import Edited
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen

REFUSAL: Final = "only a queued or held run can be edited"
EDITORS: Final = ("editor", "nano", "vi")


@click.command(name="edit")
@run_selection.run_arguments
@setting_options.accept("edit")
@click.option("--rename", metavar="NAME", help="Give the run this display name.")
@click.option(
    "--priority",
    type=click.IntRange(-MOST_PRIORITY, MOST_PRIORITY),
    metavar="N",
    help="Start higher ones first.",
)
@click.option("--gpus", type=whole(high=MOST_GPUS), metavar="N", help="Number of GPUs it needs (0 = none).")
@click.option("--exclusive/--no-exclusive", default=None, help="Share its GPUs with no other Backprop run.")
@click.option(
    "--order",
    type=click.Choice(["round-robin", "fifo"]),
    help="After a segment, go to the back of the queue, or keep its turn.",
)
@click.option(
    "--env", multiple=True, metavar="KEY=VALUE", help="Set in the script's environment; repeatable."
)
@verb_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Change queued or held RUNs by options, or one of them in $VISUAL or $EDITOR.

    The editor shows commented TOML, which is checked as `run` checks its options. A refused text is kept and opened
    again by the next edit.
    """
    from backprop.scheduler.lifecycle import State

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    changes, variables = _changes(values)
    filters = run_selection.filters_of(values)
    if not changes and not variables:
        if len(runs) != 1 or filters.given:
            raise click.UsageError(
                "an editor takes one run; give options to change several, such as -m 30", ctx
            )
        if answers.current().speaks:
            raise click.UsageError("--json goes with no editor; give options, such as -m 30", ctx)
        return _edit_text(home, database, runs[0], given.dry_run)
    waiting = {State.QUEUED, State.HELD}
    picked = run_selection.pick(ctx, database, runs, filters, waiting, "edited")
    if len(picked.able) > 1 and "name" in changes:
        raise click.UsageError(f"--rename takes one run, and these are {len(picked.able)}", ctx)
    if given.dry_run:
        from backprop.scheduler.errors import IllegalMove

        return run_selection.rehearse(picked, "change", REFUSAL, IllegalMove.exit_code)
    return _change(home, database, picked, changes, variables, given.verbose)


def _changes(values: "Mapping[str, Any]") -> tuple[dict[str, object], dict[str, str]]:
    """Return what the options change, by key, and the variables. Raises BadCommand."""
    from backprop.cli.submit.shell import env_values

    names = {
        "rename": "name",
        "priority": "priority",
        "gpus": "gpus",
        "exclusive": "exclusive",
        "order": "order",
    }
    own = {key: values[option] for option, key in names.items() if values[option] is not None}
    return setting_options.chosen(values) | own, env_values(values["env"])


def _change(
    home: "Home",
    database: "Database",
    picked: "run_selection.Selection",
    changes: "Mapping[str, object]",
    variables: "Mapping[str, str]",
    every: bool,
) -> int:
    """Change each of the runs. All values are checked before the first is changed."""
    from backprop.cli.submit import edit_text
    from backprop.scheduler.errors import LostRace
    from backprop.scheduler.home import run_folder
    from backprop.scheduler.store.reads import queries
    from backprop.worker.wakeup import wake_workers

    planned: dict[str, tuple[RunRecord, Edited]] = {}
    for one in picked.able:
        record = queries.run_by_id(database, one.id)
        if record is not None:
            path = run_folder.read_environment(home.run_folder(record.id)).get("PATH", os.defpath)
            edited = edit_text.from_values(dict(changes), variables, record, path)
            planned[one.id] = record, _placed(home, record, edited)
    done: list[Chosen] = []
    for one in picked.able:
        if one.id in planned:
            # A worker has just started it: it is named among those left unchanged.
            with contextlib.suppress(LostRace):
                _apply(home, database, *planned[one.id])
                done.append(one)
    wake_workers(home.locks)
    code = run_selection.conclude(
        picked, done, "changed {}", lambda one: f"changed {run_selection.who(one)}", REFUSAL, every=every
    )
    say_code_changes(home, database, [one.id for one in done], noted=False)
    return code


def _edit_text(home: "Home", database: "Database", run: str, dry_run: bool) -> int:
    from backprop.cli.submit import edit_text
    from backprop.scheduler.errors import BackpropError, IllegalMove
    from backprop.scheduler.home import run_folder
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.reads import queries
    from backprop.worker.wakeup import wake_workers

    record = queries.find_run(database, run)
    if record.state not in (State.QUEUED, State.HELD):
        raise IllegalMove(f"run {record.id} is {record.state}; {REFUSAL}")
    fresh = edit_text.to_text(record)
    if dry_run:
        click.echo(fresh, nl=False)
        return 0
    kept = home.root / "edits" / f"{record.id}.toml"
    text = _edit(kept, fresh)
    if text == fresh:
        return _nothing(kept, record)
    try:
        path = run_folder.read_environment(home.run_folder(record.id)).get("PATH", os.defpath)
        edited = edit_text.from_text(text, record, path)
        if (edited.name, edited.priority, edited.spec, edited.environment) == (
            record.name,
            record.priority,
            record.spec,
            {},
        ):
            return _nothing(kept, record)
        _apply(home, database, record, _placed(home, record, edited))
    except BackpropError as error:
        raise type(error)(
            f"{error}; nothing was changed; your text is kept in {kept} for the next edit"
        ) from error
    _drop(kept)
    wake_workers(home.locks)
    tell(f"changed {safe(edited.name)} ({record.id})")
    say_code_changes(home, database, [record.id], noted=False)
    return 0


def _nothing(kept: Path, run: "RunRecord") -> int:
    _drop(kept)
    click.echo(f"nothing changed in {safe(run.name)} ({run.id})")
    return 0


def _edit(kept: Path, fresh: str) -> str:
    """Open the kept text, else the fresh one, and return what the editor left. Raises BadCommand."""
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.errors import BadCommand

    editor = next((text for name in ("VISUAL", "EDITOR") if (text := os.environ.get(name))), None)
    words = shlex.split(editor) if editor is not None else _installed()
    if not words:
        raise BadCommand("no editor was found; set EDITOR")
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    if kept.exists():
        click.echo(f"continuing with the text that was kept in {kept}; delete it to start over", err=True)
    else:
        handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(fresh)
    if os.sep in words[0]:
        words[0] = str(current_directory() / words[0])
    try:
        # Not in the user's folder, which may be somebody else's: editors obey settings they find there.
        code = subprocess.run([*words, str(kept)], check=False, cwd=kept.parent).returncode
    except OSError as error:
        raise BadCommand(f"the editor {words[0]} cannot be started: {error.strerror}; set EDITOR") from error
    if code:
        raise BadCommand(f"the editor {words[0]} ended with {code}; nothing was changed; the text is {kept}")
    try:
        return kept.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCommand(f"{kept} cannot be read: {error}; nothing was changed") from error


def _installed() -> list[str]:
    """Return an editor from an absolute entry of PATH; `.` would let the folder say what is executed."""
    folders = os.pathsep.join(entry for entry in os.get_exec_path() if entry.startswith("/"))
    return [path for name in EDITORS if (path := shutil.which(name, path=folders)) is not None][:1]


def _drop(kept: Path) -> None:
    kept.unlink(missing_ok=True)
    try:
        kept.parent.rmdir()
    except OSError:
        return  # the folder holds other kept texts


def _placed(home: "Home", run: "RunRecord", edited: "Edited") -> "Edited":
    """Return the edit with what follows from where it runs. Raises BadCommand, BadConfig."""
    if edited.spec.cluster is None and run.spec.cluster is None and edited.spec == run.spec:
        return edited
    from msgspec.structs import replace

    from backprop.scheduler.config.placement import on_cluster
    from backprop.scheduler.config.settings import load

    known = load(None, home.root, None, {}).settings.clusters
    moved = edited.spec.cluster != run.spec.cluster
    chosen = not moved or edited.spec.timebox_s != run.spec.timebox_s
    return replace(edited, spec=on_cluster(edited.spec, known, chosen=chosen))


def _apply(home: "Home", database: "Database", run: "RunRecord", edited: "Edited") -> None:
    """Change the row and the folder, with the run's lock held. Raises LostRace, BadCommand.

    A worker that wants to start the run waits for the lock, and finds both changed or neither, see `SpecChanges`.
    """
    from backprop.scheduler.errors import BadCommand, LostRace
    from backprop.scheduler.home import batch_file
    from backprop.scheduler.home.spec_changes import SpecChanges
    from backprop.scheduler.store.writes import user_requests
    from backprop.worker.executor import locks
    from backprop.worker.supervisor import failpoint

    folder = home.run_folder(run.id)
    spec_file = folder / "spec.json"
    try:
        batch_file.materialise(home, run)
        lock = locks.take(home.run_lock(run.id))
    except OSError as error:
        raise BadCommand(f"its folder {folder} cannot be written: {error.strerror}") from error
    if lock is None:
        raise LostRace(f"run {run.id} is being started")

    changes = SpecChanges(home.run_folder)

    def change() -> None:
        failpoint.at("edit noted")
        changes.make(run.id, edited.spec, edited.name, edited.priority, edited.environment)
        failpoint.at("edit in folder")

    try:
        user_requests.apply_edit(
            database, run, edited.name, edited.spec, edited.priority, change, changes.take_back
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadCommand(f"{spec_file} cannot be written: {error}") from error
    finally:
        os.close(lock)
