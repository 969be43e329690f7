"""Reads the programs that fail, from the text files in `programs`.

A program begins with `## KIND | NAME | FLAGS`. `from …` names where its words are from. Of Python programs, what is
above `---` are imports, what is below is the body of a function; `#!` marks the line that fails, else it is the last.

Flags: `fw`, `torch`: needs the interpreter with the frameworks. `fake`: uses the fake library. `full`: gets a small
disk in $FULL. `cgroup`, `big`: runs in a control group with little memory, or with enough for PyTorch. `noframe`: no
line of it is in a traceback. `frame=FILE:LINE:FUNCTION`: which one is. `only=a,b`: the wrappings that it is for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Program:
    """One program. `setup` is empty for one of the shell."""

    kind: str
    name: str
    flags: frozenset[str]
    source: str | None
    setup: str
    body: str
    is_shell: bool

    def option(self, name: str) -> str | None:
        """Return the value of a flag like `only=…`; None where it has none."""
        return next((flag.partition("=")[2] for flag in self.flags if flag.startswith(f"{name}=")), None)


def programs() -> Iterator[Program]:
    """Yield all programs."""
    for path in sorted(FOLDER.glob("*.txt")):
        for block in re.split(r"^## ", path.read_text(), flags=re.M)[1:]:
            head, _, text = block.partition("\n")
            kind, name, *flags = (part.strip() for part in head.split("|"))
            source = None
            if text.startswith("from ") and path.stem == "gpu":
                first, _, text = text.partition("\n")
                source = first.removeprefix("from ")
            setup, _, body = text.partition("---\n") if path.stem != "shell" else ("", "", text)
            given = frozenset(flags[0].split()) if flags else frozenset[str]()
            yield Program(kind, name, given, source, setup.strip(), body.strip(), path.stem == "shell")
