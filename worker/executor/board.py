"""Keeps the board on which the homes of one machine tell each other what they have promised on which GPU.

A promise is a file that everybody may read: the GPUs, MiB on each, and the supervisor's pid. The flock on it is handed
to supervisor and leader, so it holds for as long as anything of its segment lives; a free one is void. The folder is
one that all users share and where nobody can remove the files of others. Its content is other people's: what is no
promise is passed over, and a false one can only make us wait. Nobody waits for a lock here.

The mode of the file says whether it counts, since that changes at once and takes no room: a full disk keeps nobody from
it. `ASIDE`: what was promised is not used now. `UNCOMPARED`: it counts again, and its home has still to see whether it
fits beside the promises of others.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from backprop.worker.executor import locks
from backprop.worker.supervisor import process_tree

VARIABLE: Final = "BACKPROP_BOARD"
FOLDERS: Final = ("/run/lock", "/tmp", "/dev/shm")
"""The first that is sticky and root's is the board: the same for every user. `/dev/shm` comes last, since systemd may
empty it of a user's files at logout."""
PREFIX: Final = "backprop-promise-"
LARGEST: Final = 4096
MOST_FILES: Final = 20_000
"""In the folder, of any program. More would take long to read at every tick."""
MOST_MIB: Final = 1 << 24
TRIES: Final = 5
COUNTS, ASIDE, UNCOMPARED = 0o644, 0o744, 0o654


class NoBoard(OSError):
    """This machine has no folder that can serve as the board. The text says why."""


class Promise(msgspec.Struct, frozen=True):
    """What another home has promised, as its file says. `mib`: on each GPU. `exclusive`: no other run may be there.
    `since_s`: Unix time. `holder`: its supervisor, None when it is not known yet."""

    gpus: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]
    mib: Annotated[int, msgspec.Meta(ge=0, le=MOST_MIB)]
    exclusive: bool = False
    since_s: float = 0.0
    holder: process_tree.Process | None = None


class _Holder(msgspec.Struct, frozen=True):
    pid: int
    start_ticks: int


class Board:
    """The board as one home sees it. `home`: its folder, by which its own promises are told from others."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def others(self) -> list[Promise]:
        """Return what other homes have promised; nothing where there is no board. Raises nothing."""
        own = f"{PREFIX}{self._token()}-"
        try:
            with _opened() as (_, folder):
                read = (_read(folder, name, own) for name in _names(folder))
                return [promise for promise in read if promise is not None]
        except OSError:
            return []

    def post(self, gpu_uuids: Sequence[str], mib: int, exclusive: bool) -> int:
        """Post a promise; return its locked descriptor. It holds until the last copy of that is closed. Raises OSError,
        NoBoard where there is no board."""
        body = {"gpus": tuple(gpu_uuids), "mib": mib, "exclusive": exclusive}
        with _opened() as (path, folder):
            _names(folder)
            for _ in range(TRIES):
                handle = _locked(folder, f"{PREFIX}{self._token()}-{secrets.token_hex(8)}", body)
                if handle is not None:
                    return handle
            raise NoBoard(errno.EAGAIN, f"no promise can be kept in {path}: another process takes its lock")

    def name_holder(self, promise: int, pid: int) -> None:
        """Say whose processes use what was promised: those below the supervisor `pid`."""
        holder = process_tree.identify(pid)
        if holder is not None:
            with contextlib.suppress(OSError):
                _write(promise, _Holder(holder.pid, holder.start_ticks))

    def sweep(self) -> None:
        """Remove void promises of this user. Raises nothing."""
        with contextlib.suppress(OSError), _opened() as (_, folder):
            for name in _names(folder):
                with _file(folder, name) as handle, contextlib.suppress(OSError):
                    # Under the shared lock of the test: whoever has just made the file notices that it is gone.
                    if (
                        handle is not None
                        and os.fstat(handle).st_uid == os.geteuid()
                        and not _is_held(handle)
                    ):
                        os.unlink(name, dir_fd=folder)

    def _token(self) -> str:
        try:
            info = self._home.stat()
        except OSError:
            return "none"
        return f"{info.st_dev:x}.{info.st_ino:x}"


def set_aside(path: Path) -> None:
    """Have a promise of ours count for nothing. Raises OSError."""
    with _own(path) as handle:
        os.fchmod(handle, ASIDE)


def is_aside(path: Path) -> bool:
    """Return whether a promise of ours was set aside, and has not been settled since. Raises OSError."""
    try:
        return stat.S_IMODE(path.lstat().st_mode) in (ASIDE, UNCOMPARED)
    except FileNotFoundError:
        return False


def take_up(path: Path, mib: int) -> None:
    """Have a promise of ours count again, as one made now, of `mib` at least. Raises OSError."""
    with _own(path) as handle:
        first, *rest = os.read(handle, LARGEST).split(b"\n")
        promise = msgspec.json.decode(first, type=Promise)
        if promise.mib < mib:
            body = {"gpus": promise.gpus, "mib": mib, "exclusive": promise.exclusive}
            content = b"\n".join([msgspec.json.encode(body), *rest])
            if os.pwrite(handle, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.ftruncate(handle, len(content))
        os.utime(handle)
        os.fchmod(handle, UNCOMPARED)


def settle(path: Path) -> None:
    """Note that a promise of ours that was taken up fits beside the others. Raises OSError."""
    with _own(path) as handle:
        if stat.S_IMODE(os.fstat(handle).st_mode) == UNCOMPARED:
            os.fchmod(handle, COUNTS)


@contextlib.contextmanager
def _own(path: Path) -> Generator[int]:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or not path.name.startswith(PREFIX):
            raise OSError(errno.EINVAL, "it is no promise", str(path))
        yield handle
    finally:
        os.close(handle)


def find_board() -> Path:
    """Return the folder that is the board here. Raises NoBoard where there is none, or it can't be written."""
    with _opened() as (path, folder):
        _names(folder)
        if not os.access(path, os.W_OK | os.X_OK):
            raise NoBoard(errno.EACCES, f"{path} cannot be written")
        return Path(path)


@contextlib.contextmanager
def _opened() -> Generator[tuple[str, int]]:
    """Open the folder: sticky, and root's or our own. Raises NoBoard."""
    named = os.environ.get(VARIABLE)
    refused: list[str] = []
    for path in (named,) if named else FOLDERS:
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            refused.append(f"{path}: {error.strerror}")
            continue
        try:
            info = os.fstat(folder)
            if info.st_mode & stat.S_ISVTX and info.st_uid in (0, os.geteuid()):
                yield path, folder
                return
            refused.append(f"{path} is not sticky or belongs to uid {info.st_uid}")
        finally:
            os.close(folder)
    raise NoBoard(errno.ENOENT, "; ".join(refused))


def _names(folder: int) -> Iterator[str]:
    """Return the names of the promises. Raises NoBoard when the folder holds too much."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, MOST_FILES + 1)]
    if len(names) > MOST_FILES:
        raise NoBoard(errno.EMFILE, f"the shared folder holds more than {MOST_FILES:,} files")
    return (name for name in names if name.startswith(PREFIX))


@contextlib.contextmanager
def _file(folder: int, name: str) -> Generator[int | None]:
    """Open what may be a promise, for reading; None when it is none. Neither a FIFO nor a lease makes it wait."""
    try:
        handle = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError:
        yield None
        return
    try:
        info = os.fstat(handle)
        yield handle if stat.S_ISREG(info.st_mode) and info.st_size <= LARGEST else None
    finally:
        os.close(handle)


def _read(folder: int, name: str, own: str) -> Promise | None:
    """Return another home's promise; None when it is void, our own, or none at all."""
    with _file(folder, name) as handle, contextlib.suppress(OSError, ValueError, RecursionError):
        if handle is None:
            return None
        info = os.fstat(handle)
        if (name.startswith(own) and info.st_uid == os.geteuid()) or not _is_held(handle):
            return None
        if stat.S_IMODE(info.st_mode) == ASIDE:
            return None
        promised, holder, *_ = [*os.read(handle, LARGEST).split(b"\n"), b""]
        promise = msgspec.json.decode(promised, type=Promise)
        return msgspec.structs.replace(promise, since_s=info.st_mtime, holder=_holder(holder))
    return None


def _holder(line: bytes) -> process_tree.Process | None:
    with contextlib.suppress(ValueError, RecursionError):
        named = msgspec.json.decode(line, type=_Holder)
        return process_tree.Process(named.pid, named.start_ticks)
    return None


def _is_held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _locked(folder: int, name: str, body: Mapping[str, object]) -> int | None:
    """Make a promise's file, whole before its lock makes it count. Return None when somebody was in the way."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(name, flags, 0o644, dir_fd=folder)
    kept = False
    try:
        os.fchmod(handle, COUNTS)  # whatever the umask
        _write(handle, body)
        kept = locks.acquire(handle) and os.fstat(handle).st_nlink == 1
        return handle if kept else None
    finally:
        if not kept:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            os.close(handle)


def _write(handle: int, body: Mapping[str, object] | _Holder) -> None:
    line = msgspec.json.encode(body) + b"\n"
    if os.write(handle, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
