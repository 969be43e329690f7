"""Stands in for a network share that has lost its server: whoever touches the folder waits until it is back.

share = HangingShare(build(folder), bench.home.parent / "share")
bench.worker(env=share.environment("worker"))
with share.away(): ...
"""

import contextlib
from collections.abc import Generator
from pathlib import Path

from tests.support.fakes.faulty_reads import WHO, compiled

SOURCE = Path(__file__).parent / "hanging_share.c"


def build(folder: Path) -> Path:
    """Compile the library into `folder`. Skips the test where no C compiler is."""
    return compiled(SOURCE, folder / "hanging_share.so")


class HangingShare:
    """One folder, which is made. `library`: from `build`."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.folder = folder
        self._library = library
        self._gone = folder.with_name(f"{folder.name} is away")
        folder.mkdir()

    def environment(self, who: str) -> dict[str, str]:
        """Return the variables for a process. `who`: see `faulty_reads.WHO`."""
        return {
            "LD_PRELOAD": str(self._library),
            "HANG_WHO": WHO[who],
            "HANG_FOLDER": str(self.folder),
            "HANG_WHILE": str(self._gone),
        }

    @contextlib.contextmanager
    def away(self) -> Generator[None]:
        """Let it hang meanwhile."""
        self._gone.touch()
        try:
            yield
        finally:
            self._gone.unlink()
