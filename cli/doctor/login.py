"""Checks whether a worker started here survives its terminal and a logout."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from backprop.cli.doctor.finding import Finding, note, ok

LOGINCTL_PATIENCE_S: Final = 2.0
LINGERING: Final = Path("/var/lib/systemd/linger")
"""Holds a file for each user who lingers. loginctl lists only users that are logged in."""


def check_terminal(environment: Mapping[str, str], cgroup: str) -> Finding:
    """Check whether a worker started here survives this terminal. `cgroup`: the text of /proc/self/cgroup."""
    if "TMUX" in environment:
        return ok("terminal", "inside tmux: a worker started here keeps running when you detach")
    if "STY" in environment:
        return ok("terminal", "inside screen: a worker started here keeps running when you detach")
    # INVOCATION_ID alone says nothing: desktops pass it on to every terminal.
    if "TERM" not in environment and cgroup.rstrip().endswith(".service"):
        return ok("terminal", f"inside the systemd unit {cgroup.rstrip().rpartition('/')[2]}")
    told = (
        "not in tmux, screen or systemd: a worker started here ends with the terminal; its segments continue"
    )
    return note("terminal", told, "tmux new -d -s backprop 'backprop worker'")


class Login(msgspec.Struct, frozen=True):
    """What systemd-logind does to `user` at logout. `cgroup`: as for `check_terminal`."""

    user: str
    lingers: bool
    kills: bool
    kills_only: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    cgroup: str = ""

    @property
    def is_killed(self) -> bool:
        listed = not self.kills_only or self.user in self.kills_only
        return self.kills and listed and self.user not in self.spares


def check_logout(login: Login | None) -> Finding:
    """Check whether processes started here survive a logout. `login` None: there is no systemd-logind.

    (logind.conf(5), KillUserProcesses=; loginctl(1), enable-linger)

    A session of their own does not help: logind kills by cgroup.
    """
    if login is None:
        return ok("logout", "no systemd-logind: logging out kills nothing")
    if "/user@" in login.cgroup:
        if login.lingers:
            return ok("logout", "under your systemd user instance, which lingers: everything keeps running")
        told = "under your systemd user instance, which ends with your last logout, and all runs with it"
        return note("logout", told, "loginctl enable-linger")
    if login.is_killed:
        told = "KillUserProcesses=yes: logging out kills workers and runs of this session, tmux or not"
        return note("logout", told, "loginctl enable-linger && systemd-run --user --scope tmux")
    return ok("logout", "KillUserProcesses=no: segments, and workers in tmux, survive a logout")


def check_sleep(inhibit: bool) -> Finding:
    """Check that the machine can be kept awake while runs are live. `inhibit`: the setting."""
    from backprop.worker.machine.sleep_inhibitor import WANTED, can_sleep, grants

    if not can_sleep():
        return ok("sleep", "the kernel of this machine offers none")
    if not inhibit:
        return note(
            "sleep", "the machine may go to sleep during runs", "inhibitSleep is false; set it to true"
        )
    granted = next((words for what, words in WANTED if grants(what)), None)
    if granted == WANTED[0][1]:
        return ok("sleep", "a worker with live runs keeps the machine awake")
    told = (
        "logind grants a lock against idleness only"
        if granted
        else "systemd's logind grants no lock against it"
    )
    return note("sleep", told, "sudo systemctl mask sleep.target suspend.target hibernate.target")


def read_login(cgroup: str) -> Login | None:
    """Ask loginctl, for 2 s at most per call; None where it does not exist or does not answer."""
    manager = _loginctl("show-user")
    if manager is None or "KillUserProcesses" not in manager:
        return None
    own = _loginctl("show-user", str(os.geteuid())) or {}
    user = own.get("Name") or os.environ.get("USER", "")
    return Login(
        user,
        lingers=own.get("Linger") == "yes" or (user != "" and (LINGERING / user).exists()),
        kills=manager["KillUserProcesses"] == "yes",
        kills_only=tuple(manager.get("KillOnlyUsers", "").split()),
        spares=tuple(manager.get("KillExcludeUsers", "").split()),
        cgroup=cgroup,
    )


def _loginctl(*words: str) -> dict[str, str] | None:
    from backprop.worker.probes.vendor_tool import find_tool, run_tool

    tool = find_tool("loginctl")
    if tool is None:
        return None
    try:
        result = run_tool([tool, *words], LOGINCTL_PATIENCE_S)
    except OSError:
        return None
    if result.code != 0:
        return None
    return {key: value for key, _, value in (line.partition("=") for line in result.out.splitlines())}
