"""Tells the kind of an end without a Python exception: by the signal, and by what programs print for themselves.

Scripts print warnings with the same words and go on. So a line counts only where it has the form in which a shell, a
command-line parser, a C++ runtime or a tool reports its own end.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.faults.last_line import EX_USAGE
from backprop.scheduler.faults.words import kind_of

NEAR_LINES: Final = 25
"""How near the end last words must be."""
VERY_NEAR: Final = 4
"""How near the end those must be that scripts print for their users."""
_SHELL_ADDS: Final = 128
"""What a shell adds to the number of the signal that ended its command."""
_BY_NUMBER: Final = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    15: "SIGTERM",
}
_OF_SIGNAL: Final = {"SIGSEGV": Fault.SEGFAULT, "SIGBUS": Fault.SEGFAULT, "SIGFPE": Fault.DIVISION}
_LAUNCHER_SAYS: Final = re.compile(
    r"\(exitcode: -(?P<a>\d{1,2})\)|exitcode\s{0,3}: -(?P<b>\d{1,2}) |Signal (?P<c>\d{1,2}) \(SIG[A-Z]{2,5}\) received"
    r"|died with <Signals\.SIG[A-Z]{2,5}: (?P<d>\d{1,2})>|exits? with return code = -(?P<e>\d{1,2})\b"
)
_WORKER_KILLED: Final = re.compile(
    r"is killed by signal: Killed|terminated abruptly|exit codes of the workers are \{[^}]{0,200}SIGKILL"
    r"|^\S{1,200}: line \d+:\s+\d+ Killed\b|^Killed$|abruptly died during"
)
_PROGRAM: Final = r"^(?!\w{0,60}(?:Error|Exception|Warning)\b)(?:[\w./+~-]{1,200}(?:: line \d{1,6})?: ){1,3}"
_NATIVE: Final = (
    (Fault.SYNTAX, re.compile(r"^\S{1,200}: line \d{1,6}: syntax error\b|: syntax error: unexpected")),
    (Fault.DIVISION, re.compile(r"^\S{1,200}: line \d{1,6}: .{0,200}\bdivision by 0\b|Floating point exception")),
    (Fault.IMPORT, re.compile(
        rf"{_PROGRAM}(?:command not found|not found)$|{_PROGRAM}No module named \S"
        rf"|{_PROGRAM}Error while finding module specification for "
        r"|error while loading shared libraries: "
    )),
    (Fault.ASSERTION, re.compile(r"^.{0,400}\bAssertion [`'].{0,600}' failed\.")),
    (Fault.SEGFAULT, re.compile(
        r"^\S{0,200}(?:: line \d{1,6}:\s+\d{1,9} )?(?:Segmentation fault|Bus error)\b|\*{3} .{0,80}SIGSEGV"
    )),
    (Fault.DISK_FULL, re.compile(rf"{_PROGRAM}.{{0,300}}(?:No space left on device|Disk quota exceeded)")),
    (Fault.NETWORK, re.compile(
        r"^(?:curl: \(\d{1,2}\)|fatal: unable to access|wget: |ssh: |rsync: |ERROR: Could not install packages).{0,300}"
        r"(?:resolve|[Cc]onnect|refused|unreachable|timed out|host)"
    )),
    (Fault.PORT_IN_USE, re.compile(
        r"^Address already in use$|^Port \d{1,5} is in use\b|(?:TensorBoard|ERROR|error)\b.{0,100}"
        r"(?:could not bind to port|address already in use)"
    )),
    (Fault.PERMISSION, re.compile(rf"{_PROGRAM}(?:.{{1,300}}: )?(?:Permission denied|Operation not permitted)$")),
    (Fault.MISSING_FILE, re.compile(
        rf"{_PROGRAM}(?:.{{1,300}}: )?(?:\[Errno 2\] )?No such file or directory$"
        r"|: can't open file '.{1,300}': \[Errno 2\]"
    )),
    (Fault.HOST_MEMORY, re.compile(rf"{_PROGRAM}.{{0,200}}Cannot allocate memory$|^MemoryError$|\bstd::bad_alloc\b")),
)  # fmt: skip
_USAGE: Final = re.compile(
    r"^\S{1,200}(?: \S{1,60})?: error: |^[Uu]sage: |^Error: (?:Missing|No such|Invalid|Got unexpected)"
    r"|FATAL Flags parsing|\bunrecognized (?:argument|option)|\b(?:unknown|illegal|invalid) option\b|No such option"
    r"|invalid choice|^╭─ Error ─|Unknown option: |^error: "
)
_USAGE_BEGINS: Final = re.compile(r"^\s?[Uu]sage: ")
_NAN_STOPS: Final = re.compile(
    r"\b(?:nan|non-?finite|inf)\b.{0,60}\b(?:stop|abort|exit|terminat|giving up|quit)"
    r"|\b(?:stop|abort|exit|terminat)\w*\b.{0,60}\b(?:nan|non-?finite)\b",
    re.IGNORECASE,
)
_THROWN: Final = re.compile(r"terminate called after throwing an instance of '(?P<name>[^']{1,200})'")
_WHAT: Final = re.compile(r"\s{0,4}what\(\):\s{0,4}(?P<text>.*)$")
_REPORTED: Final = re.compile(
    r"(?:[^\w\s]{0,4}|[EF]\d{4} .{0,80}\] |\[rank\d{1,4}\]:)?\s?"
    r"(?P<name>CUDA error|CUDA (?:runtime )?error|Cuda failure|HIP error|GPUassert|cudaMalloc)\b:?\s?(?P<text>.*)$",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(
    r"(?P<name>(?:[A-Za-z_]\w{0,60}\.){0,6}\w{0,60}(?:Error|Exception)): (?P<text>\S.*)$"
)
_RANK: Final = re.compile(r"^\[(?:rank|default)\d{1,4}\]: ?(?!\[E)")
_FOOTER: Final = re.compile(r"wandb:|exit: \d+$|frame #\d+: |Exception raised from |={5,}|-{5,}|\[W\d{4} ")


class LastWords(msgspec.Struct, frozen=True):
    """A kind, with the line that shows it; None where the signal alone does."""

    kind: Fault
    line: str | None


def signal_of(exit_code: int | None, signal_name: str | None, lines: Sequence[str]) -> str | None:
    """Return the signal that ended the program: its own, one that a shell reports by its exit code, or one that a
    launcher reports of a process; None where none did."""
    if signal_name is not None:
        return signal_name
    if exit_code is not None and exit_code - _SHELL_ADDS in _BY_NUMBER:
        return _BY_NUMBER[exit_code - _SHELL_ADDS]
    for line in lines[-2 * NEAR_LINES :]:
        match = _LAUNCHER_SAYS.search(line)
        if match is not None:
            number = int(next(group for group in match.groups() if group is not None))
            if number != 15:  # how a launcher ends the others
                return _BY_NUMBER.get(number)
    return None


def worker_was_killed(lines: Sequence[str]) -> bool:
    """Return whether the end of a log says that a process below the program was killed."""
    return any(_WORKER_KILLED.search(line) for line in lines[-4 * NEAR_LINES :])


def of_signal(name: str | None) -> Fault | None:
    """Return the kind that a signal alone means."""
    return _OF_SIGNAL.get(name) if name is not None else None


def last_words(lines: Sequence[str], exit_code: int | None) -> LastWords | None:
    """Return what programs say for themselves in the last lines."""
    bare = (_RANK.sub("", line) for line in lines[-4 * NEAR_LINES :])
    near = [line for line in bare if line and not _FOOTER.match(line)][-NEAR_LINES:]
    thrown = _thrown(near)
    if thrown is not None:
        return thrown
    for line in reversed(near):
        reported = _REPORTED.match(line)
        if reported is not None:
            return LastWords(kind_of(reported["name"], f"{reported['name']}: {reported['text']}"), line)
        kind = _first(_NATIVE, line)
        if kind is not None:
            return LastWords(kind, line.strip())
    usage = _usage(near, exit_code)
    if usage is not None:
        return LastWords(Fault.USAGE, usage)
    for line in reversed(near[-VERY_NEAR:]):
        if _NAN_STOPS.search(line) is not None:
            return LastWords(Fault.NAN, line)
    named = _NAMED.match(near[-1]) if near else None
    return LastWords(kind_of(named["name"], named["text"]), near[-1]) if named is not None else None


def _first(table: Iterable[tuple[Fault, re.Pattern[str]]], line: str) -> Fault | None:
    return next((kind for kind, words in table if words.search(line) is not None), None)


def _thrown(lines: Sequence[str]) -> LastWords | None:
    """Return what a C++ runtime says of an exception that nobody caught."""
    for at in range(len(lines) - 1, -1, -1):
        thrown = _THROWN.search(lines[at])
        if thrown is None:
            continue
        what = next(
            (match for line in lines[at + 1 : at + 3] if (match := _WHAT.match(line)) is not None), None
        )
        text = what["text"] if what is not None else ""
        kind = kind_of(thrown["name"], text)
        if kind is Fault.EXCEPTION:
            kind = Fault.RUNTIME
        return LastWords(kind, f"{thrown['name']}: {text}" if text else thrown["name"])
    return None


def _usage(lines: Sequence[str], exit_code: int | None) -> str | None:
    """Return the line in which a parser of command lines refuses one."""
    said = [line for line in lines if _USAGE.search(line) is not None]
    if not said or (
        exit_code not in EX_USAGE and not any(map(_begins_usage, lines)) and "FATAL Flags" not in said[-1]
    ):
        return None
    refusals = [line for line in said if not _begins_usage(line)]
    return (refusals or said)[-1].strip()


def _begins_usage(line: str) -> bool:
    return _USAGE_BEGINS.match(line) is not None
