"""Searches the folders of a live run for what may be a checkpoint, whatever its recipe expects: in short steps.

One pass goes through the run's directory and the user's links in it, the folders that its command and environment name,
the directories of its processes and those of files that they have open for writing. The next one begins later the more
this one has cost.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.spec import RunSpec
from backprop.worker.checkpoints.resume import announces_its_saves
from backprop.worker.checkpoints.roots import is_inside, roots_for, too_broad
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.seen.looks_like import is_checkpoint_folder, is_left_out, may_be_checkpoint
from backprop.worker.checkpoints.seen.places import read_only_options, saving_variables

EVERY_S: Final = 2.0
COST_SHARE: Final = 0.02
PAUSE_CAP_S: Final = 60.0
STEP_S: Final = 0.1
FINISH_S: Final = 3.0
MAX_DEPTH: Final = 6
MAX_FOLDERS: Final = 5000
"""Per pass."""
MAX_ENTRIES: Final = 3000
"""Per folder: one with more is a data set."""
MAX_FOUND: Final = 64
LINKS_TO_DEPTH: Final = 2


class Finder:
    """Searches for one segment. `found`: paths that were written since it began, by when (Unix seconds)."""

    def __init__(
        self,
        spec: RunSpec,
        environment: Callable[[], Mapping[str, str]],
        began: Beginning,
        avoid: Path,
        more: Callable[[], Iterable[str]],
    ) -> None:
        """`environment`: returns that of the shell that queued it. `avoid`: a folder that is never opened. `more`:
        returns further folders, at the start of each pass."""
        self.found: dict[str, float] = {}
        self.cut_short = False
        self._spec, self._environment, self._more = spec, environment, more
        self._began, self._avoid = began, avoid
        self._announces: bool | None = None
        self._pass: Generator[None] | None = None
        self._cost_s = 0.0
        self._next_s = 0.0

    def step(self, within_s: float = STEP_S) -> bool:
        """Go on searching for so long, if it is time to. Return whether a pass is complete."""
        began_s = time.monotonic()
        if self._pass is None:
            if began_s < self._next_s:
                return True
            self._pass, self._cost_s = self._search(), 0.0
        for _ in self._pass:
            if time.monotonic() - began_s > within_s:
                self._cost_s += time.monotonic() - began_s
                return False
        now_s = time.monotonic()
        self._pass = None
        pause_s = min((self._cost_s + now_s - began_s) / COST_SHARE, PAUSE_CAP_S)
        self._next_s = now_s + max(EVERY_S, pause_s)
        return True

    def finish(self) -> bool:
        """Make one whole pass now; False where there was no time for all of it."""
        self._pass, self._next_s = None, 0.0
        return self.step(FINISH_S)

    def _search(self) -> Generator[None]:
        """Visit the nearest folders first, so that a large tree hides none beside it. A script that announces its saves
        means no other file of its own."""
        if self._announces is None:
            self._announces = announces_its_saves(self._spec)
        if self._announces:
            return
        waiting = deque((root, 0) for root in self._roots())
        visited: set[tuple[int, int]] = set()
        self.cut_short = False
        while waiting:
            folder, depth = waiting.popleft()
            try:
                info = os.stat(folder)  # noqa: PTH116
            except OSError:
                continue
            yield
            if (info.st_dev, info.st_ino) in visited or not stat.S_ISDIR(info.st_mode):
                continue
            if len(visited) >= MAX_FOLDERS:
                self.cut_short = True
                return
            visited.add((info.st_dev, info.st_ino))
            waiting += [(below, depth + 1) for below in self._visit(folder, depth)]

    def _roots(self) -> list[str]:
        spec = self._spec
        cwd = Path(spec.cwd)
        reads = read_only_options(spec.argv)
        argv = [word for word in spec.argv if word not in reads and word.partition("=")[2] not in reads]
        extra = [cwd / value for _, value in saving_variables(self._environment()) if value]
        extra += [Path(each) for each in (*spec.checkpoint_roots, *self._more())]
        given = Path(spec.resume_from) if spec.resume_from else None
        roots = [root for root in roots_for(cwd, argv, given, extra) if root.is_dir()]
        return list(dict.fromkeys([spec.cwd, *map(str, roots)]))

    def _visit(self, folder: str, depth: int) -> list[str]:
        """Note what may be a checkpoint in a folder; return the folders below it that are to be visited."""
        path = Path(folder)
        if is_inside(path, self._avoid):
            return []
        try:
            with os.scandir(folder) as entries:
                inside = [entry for _, entry in zip(range(MAX_ENTRIES), entries, strict=False)]
        except OSError:
            return []
        if depth and is_checkpoint_folder({entry.name for entry in inside}):
            self._note(folder, inside)
            return []
        below: list[str] = []
        for entry in inside:
            if may_be_checkpoint(entry.name, path.name) and not _is_folder(entry):
                self._note(entry.path, [entry])
                continue
            if depth < MAX_DEPTH and not is_left_out(entry.name) and self._may_enter(entry, depth):
                below.append(entry.path)
        return below

    def _may_enter(self, entry: os.DirEntry[str], depth: int) -> bool:
        """Return whether it is a folder, or near the top a link of the user's to one."""
        try:
            if not entry.is_symlink():
                return entry.is_dir()
            if depth >= LINKS_TO_DEPTH or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                return False
            return entry.is_dir() and not too_broad(Path(os.path.realpath(entry.path)))
        except OSError:
            return False

    def _note(self, path: str, parts: Iterable[os.DirEntry[str]]) -> None:
        """Note a path, unless all its parts were there before."""
        known = [(part.path, info) for part in parts if (info := _info(part)) is not None]
        new = [info.st_mtime for part, info in known if not self._began.is_old(part, info)]
        if not new:
            return
        self.found[path] = max(new)
        if len(self.found) > MAX_FOUND:
            del self.found[min(self.found, key=self.found.__getitem__)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _info(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None
