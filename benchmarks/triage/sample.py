"""Defines one log of a program that failed, and reads and writes files of them, one JSON object per line."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One log. `kind`: what went wrong, as the program's author says. `program`: its name; all samples of one are in
    the same half. `wrapping`: how it was run. `source`: where its words are from, for those it could not print by
    itself. `own`: the line of the user's own code that failed: file, line, function; None where no traceback has it.
    `oom_kills`: what the kernel counted meanwhile in its control group and on the machine. `log`: its output's end.
    """

    kind: str
    program: str
    wrapping: str
    source: str | None
    exit_code: int | None
    signal: str | None
    oom_kills: tuple[int | None, int | None]
    cwd: str
    own: tuple[str, int, str] | None
    log: str


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Write the samples of one half."""
    path.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples))


def read(path: Path) -> Sequence[Sample]:
    """Return the samples of a file. Raises OSError, ValueError."""
    samples: list[Sample] = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        kills, own = fields.pop("oom_kills"), fields.pop("own")
        samples.append(
            Sample(**fields, oom_kills=(kills[0], kills[1]), own=(own[0], own[1], own[2]) if own else None)
        )
    return samples
