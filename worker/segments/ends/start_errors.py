"""Tells whose the error of a start was: the machine's, which passes, a missing path's, or the run's own."""

import errno
from pathlib import Path

from backprop.scheduler.records import RunRecord
from backprop.worker.environment.presence import missing, missing_interpreter
from backprop.worker.executor import segment_files
from backprop.worker.executor.segment_files import ExitRecord

PASSING_ERRORS = frozenset(
    {
        errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY,
        errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EREMOTEIO,
    }
)  # fmt: skip
"""Errors of a start that are the machine's: no process, memory, descriptor or disk is available just now, or a disk or
share is in trouble."""
OWN_FILE_ERRORS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO})
"""Errors of a start at a file of ours that do not pass: somebody removed it, or put something else in its place."""
PATH_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EACCES)
"""Errors of a start whose directory or program may have gone between the last look and the start."""


def passes(number: int | None, users: bool) -> bool:
    """Return whether the error of a start is the machine's. `users`: it was met at the user's directory or program."""
    if number is None or number in PASSING_ERRORS:
        return number is not None
    return not users and number not in OWN_FILE_ERRORS


def at_users_path(exit: ExitRecord, folder: Path) -> bool:  # noqa: A002
    """Return whether a start failed at the run's directory or program, rather than at a file of ours; True where the
    order is lost, which would tell."""
    order = segment_files.read_order(folder)
    return order is None or (exit.path is not None and exit.path in (order.cwd, order.program))


def lacked_a_path(run: RunRecord, exit: ExitRecord, folder: Path) -> bool:  # noqa: A002
    """Return whether a start failed for a path that is away, or was. `exit`: it failed at the user's directory or
    program. One that is there and may not be entered or executed is the run's own fault."""
    if exit.path is None:
        return False
    is_away = missing("its directory", exit.path) is not None or missing_interpreter(exit.path) is not None
    return is_away or (exit.errno != errno.EACCES and not _failed_so_before(run, folder))


def _failed_so_before(run: RunRecord, folder: Path) -> bool:
    """Return whether the start before failed for a path too: what is there and is not found twice lacks something else,
    such as the loader of a foreign program."""
    before = segment_files.read_exit(folder.with_name(str(run.segment - 1)))
    return before is not None and before.path is not None
