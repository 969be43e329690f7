"""Remembers which driver was seen to move VRAM on which GPU, and refuses what is known to do harm.

A driver that cannot do it may end the process, or hang the whole machine. So VRAM is moved only where a process of ours
came through it, as the same user, with the same driver, on the same GPU. Before that is tried, a synced note says so:
found in a later boot, it means that the machine went down meanwhile, and that driver is never tried again.
"""

import os
import re
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import sync, write_synced

OLDEST_BRANCH: Final = 575
"""570 has the calls, and refuses the simplest process."""
BAD_BRANCHES: Final = {
    595: "it was seen to hang the machine when a process was ended whose VRAM had come back",
    610: "it was seen to end the process whose VRAM was to be moved",
}
ADVICE: Final = "run `backprop doctor --suspend-test` once, at an idle moment"
MOST_KEPT: Final = 100
NVIDIA, AMD = "/dev/nvidiactl", "/dev/kfd"
"""There where a GPU can be used to compute."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One that has ended. `told`: what came of it, in words."""

    gpu_uuid: str
    driver: str
    uid: int
    passed: bool
    told: str
    at_s: float


class _Trying(msgspec.Struct, frozen=True, kw_only=True):
    gpu_uuid: str
    driver: str
    boot_id: str
    at_s: float


class _File(msgspec.Struct, frozen=True, kw_only=True):
    format: int = 1
    trying: tuple[_Trying, ...] = ()
    ended: tuple[Trial, ...] = ()


def why_not(home: Home, gpu_uuid: str, driver: str | None) -> str | None:
    """Return why VRAM is not moved on this GPU, in words; None where it is. Raises OSError."""
    if (why := why_never(home, gpu_uuid, driver)) is not None:
        return why
    trial = last(home, gpu_uuid, driver)
    if trial is None:
        return f"this driver and GPU have not been tried: {ADVICE}"
    return None if trial.passed else f"it failed its test: {trial.told}"


def why_never(home: Home, gpu_uuid: str, driver: str | None) -> str | None:
    """Return why it is not even tried; None where it may be. Raises OSError."""
    if driver is None:
        return "the version of the NVIDIA driver cannot be read"
    if gpu_uuid.startswith("MIG-"):
        return "a part of a GPU (MIG) cannot be moved"
    branch = _branch(driver)
    if branch is None or branch < OLDEST_BRANCH:
        return f"driver {driver} is too old, {OLDEST_BRANCH} is the first that can"
    if branch in BAD_BRANCHES:
        return f"driver {driver}: {BAD_BRANCHES[branch]}"
    here = _boot_id()
    if any(note.driver == driver and note.boot_id != here for note in _read(home).trying):
        return f"the machine went down while driver {driver} was tried"
    return None


def last(home: Home, gpu_uuid: str, driver: str | None) -> Trial | None:
    """Return the newest trial of this driver on this GPU by this user; None for none. Raises OSError."""
    key = (gpu_uuid, driver, os.geteuid())
    found = [each for each in _read(home).ended if (each.gpu_uuid, each.driver, each.uid) == key]
    return found[-1] if found else None


def words_of_start(home: Home) -> str:
    """Return what to know of VRAM here before any GPU is read: why a suspension leaves it where it is. "" where a
    driver was seen to move it, or no GPU is here. Raises OSError."""
    content = _read(home)
    newest = {(each.gpu_uuid, each.driver): each for each in content.ended if each.uid == os.geteuid()}
    if any(each.passed for each in newest.values()):
        return ""
    if not os.path.exists(NVIDIA):  # noqa: PTH110
        return "it is moved on NVIDIA GPUs alone" if os.path.exists(AMD) else ""  # noqa: PTH110
    if any(note.boot_id != _boot_id() for note in content.trying):
        return "the machine went down while its driver was tried"
    return "it failed its test" if newest else "not moved before `backprop doctor --suspend-test` has passed"


def begin(home: Home, gpu_uuid: str, driver: str) -> None:
    """Note that this driver is about to be tried, so that no crash of the machine is forgotten. Raises OSError."""
    content, note = _read(home), _note(gpu_uuid, driver)
    _write(home, [*_without(content.trying, note), note], content.ended)


def end(home: Home, gpu_uuid: str, driver: str, passed: bool, told: str) -> None:
    """Note what came of it. Raises OSError."""
    content = _read(home)
    trial = Trial(
        gpu_uuid=gpu_uuid, driver=driver, uid=os.geteuid(), passed=passed, told=told, at_s=time.time()
    )
    rest = _without(content.trying, _note(gpu_uuid, driver))
    _write(home, rest, [*content.ended, trial][-MOST_KEPT:])


def call_off(home: Home, gpu_uuid: str, driver: str) -> None:
    """Forget what `begin` noted: it could not be tried now. Raises OSError."""
    content = _read(home)
    _write(home, _without(content.trying, _note(gpu_uuid, driver)), content.ended)


def _boot_id() -> str:
    # Each `run` loads this module, and never needs that one.
    from backprop.worker.supervisor import process_tree

    return process_tree.boot_id()


def _note(gpu_uuid: str, driver: str) -> _Trying:
    return _Trying(gpu_uuid=gpu_uuid, driver=driver, boot_id=_boot_id(), at_s=time.time())


def _without(notes: Sequence[_Trying], gone: _Trying) -> list[_Trying]:
    key = (gone.gpu_uuid, gone.driver, gone.boot_id)
    return [note for note in notes if (note.gpu_uuid, note.driver, note.boot_id) != key]


def _branch(driver: str) -> int | None:
    found = re.match(r"(\d+)\.", driver)
    return int(found[1]) if found is not None else None


def _read(home: Home) -> _File:
    content = read_if_there(home.vram_trials)
    try:
        return msgspec.json.decode(content, type=_File) if content is not None else _File()
    except msgspec.DecodeError:
        return _File()


def _write(home: Home, trying: Sequence[_Trying], ended: Sequence[Trial]) -> None:
    draft = home.vram_trials.with_name(f"{home.vram_trials.name}.tmp")
    write_synced(draft, (msgspec.json.encode(_File(trying=tuple(trying), ended=tuple(ended))),), synced=True)
    draft.replace(home.vram_trials)
    sync(home.root)
