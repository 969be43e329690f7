"""Takes a command line apart: what it starts, through which launchers, with which arguments.

Every `backprop run` loads this module, so it imports little: most scripts are not examined any further.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath, PurePosixPath
from typing import Final

import msgspec

from backprop.scheduler.recipes.source_reader import SourceReader

REACHED: Final = frozenset(
    {
        "torchrun",
        "torch.distributed.run",
        "torch.distributed.launch",
        "accelerate",
        "accelerate.commands.launch",
    }
)
"""Below them the stop signal reaches the script. torch's launcher hands it to its workers and waits 30 s for them
(torch/distributed/elastic/multiprocessing/api.py). accelerate waits for the script, or is torch's launcher itself."""
LAUNCHERS: Final = REACHED | {
    "composer",
    "composer.cli.launcher",
    "deepspeed",
    "deepspeed.launcher.runner",
    "horovodrun",
    "mpiexec",
    "mpirun",
}
ENTRIES: Final = frozenset({"yolo", "fairseq-train", "fairseq_cli.train"})
"""Console commands and modules with a recipe of their own."""
MAX_WORDS: Final = 2000
MAX_WORD_CHARACTERS: Final = 4096
_KEY: Final = r"(?a)-{0,2}[A-Za-z_][\w.-]*"


class Command(msgspec.Struct, frozen=True):
    """A command line taken apart.

    `entry`: the console command or module, "" for a script. `launchers`: the known ones before it. `at`: where in argv
    the arguments begin. `given`: their values by name, dashes as underscores, the last one winning; "" for one without
    a value. Of a dotted name (`trainer.max_steps`) the last part counts too.
    """

    entry: str = ""
    script: PurePath | None = None
    launchers: frozenset[str] = frozenset()
    at: int = 0
    arguments: tuple[str, ...] = ()
    given: Mapping[str, str] | None = None

    def value(self, name: str) -> str | None:
        """Return what was given for this option; None when it was not."""
        return None if self.given is None else self.given.get(normal(name))


def normal(name: str) -> str:
    """Return an option's name without leading dashes, and with underscores for the others."""
    return name.lstrip("-").replace("-", "_")


def read_command(argv: Sequence[str], cwd: PurePath, reader: SourceReader) -> Command:
    """Take a command apart. Raises nothing."""
    words = [word if len(word) <= MAX_WORD_CHARACTERS else "" for word in argv[:MAX_WORDS]]
    launchers: set[str] = set()
    for at, word in enumerate(words):
        is_module = at > 0 and words[at - 1] in ("-m", "--module")
        name = word if is_module else PurePosixPath(word).name
        if name in LAUNCHERS:
            launchers.add(name)
        elif name in ENTRIES:
            return _command(words, at, launchers, entry=name)
        elif is_module and (script := _module(word, cwd, reader)) is not None:
            return _command(words, at, launchers, script=script)
        elif word.endswith(".py") and reader.is_file(cwd / word):
            return _command(words, at, launchers, script=cwd / word)
    return Command()


def options_in(arguments: Sequence[str]) -> dict[str, str]:
    """Return the values of `--a=1`, `--a 1`, `a=1` and `A 1` (as yacs takes it) by name."""
    values: dict[str, str] = {}
    for at, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if not re.fullmatch(_KEY, name):
            continue
        if not equals:
            following = arguments[at + 1] if at + 1 < len(arguments) else ""
            if word.startswith("-"):
                value = "" if following.startswith("--") else following
            elif word.isupper() or "." in word:
                value = following
            else:
                continue
        key = normal(name)
        values[key] = value
        values[key.rpartition(".")[2]] = value
    return values


def _command(
    words: Sequence[str], at: int, launchers: set[str], entry: str = "", script: PurePath | None = None
) -> Command:
    arguments = tuple(words[at + 1 :])
    return Command(entry, script, frozenset(launchers), at + 1, arguments, options_in(arguments))


def _module(name: str, cwd: PurePath, reader: SourceReader) -> PurePath | None:
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return None
    path = cwd.joinpath(*name.split("."))
    return next(
        (file for file in (path.with_suffix(".py"), path / "__main__.py") if reader.is_file(file)), None
    )
