"""Installs, removes and describes the worker's unit at the user's systemd instance."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Final

import msgspec

from backprop.cli.service.unit import MARK, NAME, unit_text
from backprop.scheduler.errors import HomeRefused, ServiceRefused
from backprop.scheduler.home.file_reading import NOT_THERE

ANSWER_S: Final = 10.0
STOP_S: Final = 150.0
"""Longer than the unit's TimeoutStopSec."""
IN_TMUX: Final = "start the worker in tmux: tmux new -d -s backprop 'backprop worker'"
KEPT: Final = ("BACKPROP_HOME", "BACKPROP_BOARD")
"""What moves a home or its board has to be the same in the service as in the shells that queue."""


class ServiceState(msgspec.Struct, frozen=True):
    """`path`: the unit. `active`, `enabled`: systemd's words, empty without a unit of ours. `lingers`: whether the
    user's instance outlives a logout; None where logind does not say."""

    path: Path
    installed: bool
    active: str
    enabled: str
    lingers: bool | None


def unit_path() -> Path:
    """Return where the user's units lie. (systemd.unit(5), UNIT FILE LOAD PATH) Raises HomeRefused."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(folder) if folder.startswith("/") else Path.home() / ".config"
    except RuntimeError as error:
        raise HomeRefused(f"there is no home directory for a unit: HOME is not set; {IN_TMUX}") from error
    return base / "systemd" / "user" / NAME


def planned(words: tuple[str, ...]) -> str:
    """Return the unit that `install` would write. `words`: options of the worker. Raises ServiceRefused."""
    kept = {name: os.environ[name] for name in KEPT if os.environ.get(name)}
    odd = next((text for text in (*words, *kept.values()) if "\n" in text), None)
    if odd is not None:
        raise ServiceRefused(f"a unit cannot hold {odd!r}: it has a line break; choose another path or value")
    return unit_text(_program(), words, kept)


def install(text: str) -> Path:
    """Write the unit, enable it, and start or restart the worker. Raises ServiceRefused, with all as it was before."""
    path, before = unit_path(), _current()
    systemctl = _systemctl()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text)
    except OSError as error:
        raise ServiceRefused(f"cannot write {error.filename or path}: {error.strerror}") from error
    try:
        for words in (("daemon-reload",), ("enable", NAME), ("restart", NAME)):
            _ask(systemctl, *words)
    except ServiceRefused:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, before)
        raise
    return path


def remove() -> Path:
    """Stop the worker, which asks its segments to checkpoint, and delete the unit. Raises ServiceRefused."""
    if _current() is None:
        raise ServiceRefused("no service is installed; install one: backprop service install")
    path, systemctl = unit_path(), _systemctl()
    _ask(systemctl, "disable", "--now", NAME)
    path.unlink(missing_ok=True)
    _ask(systemctl, "daemon-reload")
    return path


def state() -> ServiceState:
    """Ask systemd about the unit. Raises ServiceRefused."""
    path, installed = unit_path(), _current() is not None
    active = _word("is-active") if installed else ""
    enabled = _word("is-enabled") if installed else ""
    return ServiceState(path, installed, active, enabled, lingers())


def lingers() -> bool | None:
    """Return whether the user's systemd instance stays after the last logout; None where logind does not say."""
    from backprop.cli.doctor.login import read_login

    login = read_login("")
    return login.lingers if login is not None else None


def _current() -> str | None:
    """Return the unit that is there. Raises ServiceRefused where it is not of this command's making."""
    path = unit_path()
    try:
        text = path.read_text()
    except NOT_THERE:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceRefused(f"{path} cannot be read: {error}; move it away") from error
    if not text.startswith(MARK):
        raise ServiceRefused(
            f"{path} was not written by this command, and stays as it is; move it away first"
        )
    return text


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def _program() -> Path:
    """Return the installed command, which an upgrade leaves where it is. Raises ServiceRefused."""
    called = Path(sys.argv[0])
    beside = Path(sysconfig.get_path("scripts")) / "backprop"
    for path in (called, beside):
        if path.name == "backprop" and path.is_file():
            return path.absolute()
    raise ServiceRefused(f"there is no command at {beside}; install Backprop as a package first")


def _systemctl() -> str:
    folders = os.pathsep.join(entry for entry in os.get_exec_path() if entry.startswith("/"))
    found = shutil.which("systemctl", path=folders)
    if found is None:
        raise ServiceRefused(f"there is no systemctl on PATH: this machine does not run systemd; {IN_TMUX}")
    return found


def _ask(systemctl: str, *words: str) -> None:
    """Raises ServiceRefused."""
    from backprop.worker.probes.vendor_tool import run_tool

    said = f"systemctl --user {' '.join(words)}"
    try:
        result = run_tool([systemctl, "--user", *words], STOP_S)
    except OSError as error:
        raise ServiceRefused(f"{said} cannot be run: {error.strerror}; {IN_TMUX}") from error
    if result.code != 0:
        why = "no answer" if result.code is None else result.complaint()
        raise ServiceRefused(f"{said} failed: {why}; {IN_TMUX}")


def _word(verb: str) -> str:
    """Return the one word that `systemctl is-…` prints. It exits with 3 for a unit that is not active."""
    from backprop.worker.probes.vendor_tool import run_tool

    try:
        result = run_tool([_systemctl(), "--user", verb, NAME], ANSWER_S)
    except OSError as error:
        raise ServiceRefused(f"systemctl cannot be run: {error.strerror}; {IN_TMUX}") from error
    lines = result.out.split()
    if not lines:
        raise ServiceRefused(f"systemctl --user {verb} {NAME} failed: {result.complaint()}; {IN_TMUX}")
    return lines[0]
