"""Keeps the folders of runs where the nodes of a cluster see them; the home holds a link to each.

The home itself, with its database and its locks, stays on a local disk. A link counts only if it leads where the run's
specification says: whatever else has its name is refused.
"""

import os
import shutil
import stat
from pathlib import Path

from backprop.scheduler.errors import HomeRefused
from backprop.scheduler.home import run_folder
from backprop.scheduler.home.layout import Home


def path_of(share: str, run_id: str) -> Path:
    """Return where a run's folder lies below the folder of a cluster."""
    return Path(share) / "runs" / run_id


def check(share: Path) -> None:
    """Refuse a folder that others could read or plant files in. Raises HomeRefused, OSError when it cannot be seen."""
    info = share.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise HomeRefused(
            f"{share} is not a directory; give the cluster a folder of yours that all its nodes see"
        )
    if info.st_uid != os.geteuid():
        raise HomeRefused(
            f"{share} belongs to uid {info.st_uid}, you are {os.geteuid()}; choose a folder of yours"
        )
    if info.st_mode & 0o077:
        raise HomeRefused(
            f"{share} is open to others (mode {info.st_mode & 0o777:o}); close it: chmod 700 {share}"
        )


def make(home: Home, run_id: str, share: str) -> None:
    """Create the folder of a new run on the share, and the link to it. Raises FileExistsError, HomeRefused, OSError."""
    link = home.run_folder(run_id)
    if os.path.lexists(link):
        raise FileExistsError(17, "File exists", str(link))
    target = _ready(share, run_id)
    target.mkdir(mode=0o700)
    try:
        link.symlink_to(target)
    except OSError:
        target.rmdir()
        raise


def bring(home: Home, run_id: str, share: str) -> None:
    """Have the folder of a run that nobody runs lie on the share. Raises HomeRefused, OSError.

    One that lies elsewhere is copied whole before the link takes its place, so a crash leaves one of them.
    """
    folder, target = home.run_folder(run_id), path_of(share, run_id)
    if folder.is_symlink():
        if folder.readlink() == target:
            check(Path(share))
            return
        source = folder.resolve(strict=True)
        if source.parts[-2:] != ("runs", run_id):
            raise HomeRefused(
                f"{folder} is a link to {source}, which is no folder of this run; remove the link"
            )
    else:
        source = folder
    _ready(share, run_id)
    draft = target.with_name(f".{run_id}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, symlinks=True)
    if target.exists():
        raise FileExistsError(17, "another run's folder has this name", str(target))
    draft.rename(target)
    run_folder.sync(target.parent)
    link = home.runs / f".link-{run_id}"
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    if folder.is_symlink():
        link.replace(folder)
        shutil.rmtree(source, ignore_errors=True)
        return
    aside = home.runs / f".moved-{run_id}"
    folder.rename(aside)
    link.rename(folder)
    run_folder.sync(home.runs)
    shutil.rmtree(aside, ignore_errors=True)


def _ready(share: str, run_id: str) -> Path:
    """Return where a run's folder is to lie, in a folder that is there and closed to others."""
    check(Path(share))
    target = path_of(share, run_id)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    return target
