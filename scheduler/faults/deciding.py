"""Tells what ended a segment, from its exit status, what the kernel counted, and the end of its log.

In this order: what is known already; the kernel's OOM killer, where something was killed and the kernel counted it; a
crash of native code; the exception that ended the program; what a program says for itself; nothing known.

Of several exceptions counts the last one that is not a launcher's, near the end; of several processes that of the one
which failed first. Where it was raised from another one (`raise … from`), that one tells the kind, unless the last
tells more. "During handling of the above exception" says nothing: a script may try again inside `except`.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.faults import last_words, own_code, tracebacks
from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.faults.log_lines import lines_of
from backprop.scheduler.faults.remedies import REMEDIES
from backprop.scheduler.faults.tracebacks import Raised
from backprop.scheduler.faults.triage import Place, SegmentEnd, Triage
from backprop.scheduler.faults.words import kind_of

TRACEBACK_LINES: Final = 80
"""How near the end an exception must be, to be the end: what was printed before may be written after it."""
CRASH_LINES: Final = 3
"""How near the end an exception must be, where a crash of native code followed: one while the interpreter ends."""
MESSAGE_CHARACTERS: Final = 500
_LAUNCHER: Final = re.compile(r"(?:.*\.)?(?:ChildFailedError|CalledProcessError|ProcessRaisedException)$")
_VAGUE: Final = frozenset({Fault.RUNTIME, Fault.EXCEPTION})
_FOLLOWS: Final = re.compile(
    r"Connection closed by peer|Connection reset by peer|ncclRemoteError|Broken pipe|Watchdog caught",
    re.IGNORECASE,
)
"""What other processes say once one has failed."""
_NAMED: Final = re.compile(r"\b(?P<name>(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception)): (?P<text>[^;]*)")


class _Exception(msgspec.Struct, frozen=True):
    kind: Fault
    message: str
    place: Place | None
    end: int


def triage(end: SegmentEnd) -> Triage:
    """Return what ended a segment; UNKNOWN where nothing tells. Takes any bytes for a log, and raises nothing."""
    lines = lines_of(end.log)
    found = _triage(end, lines)
    if found.kind is Fault.UNKNOWN and not lines and end.said:
        found = _from_words(end.said)
    if end.known is not None and found.kind is not end.known:
        message = found.message if found.kind is Fault.UNKNOWN or end.known is Fault.GPU_MEMORY else None
        place = found.place if end.known is Fault.GPU_MEMORY else None
        found = Triage(end.known, end.said or message, place, REMEDIES[end.known])
    return msgspec.structs.replace(
        found, message=found.message[:MESSAGE_CHARACTERS] if found.message else None
    )


def _triage(end: SegmentEnd, lines: Sequence[str]) -> Triage:
    all_raised = tracebacks.find(lines)
    reports = [one for one in all_raised if _is_launchers(one, end.cwd)]
    raised = [one for one in all_raised if one not in reports]
    last = max((one.end for one in raised), default=0)
    stop = min((one.at for one in reports if one.at >= last), default=len(lines))
    signal = last_words.signal_of(end.exit_code, end.signal_name, lines)
    fatal = next((one for one in reversed(raised) if one.name == "Fatal Python error"), None)
    exception = _decide(raised, stop, end.cwd)
    if _was_oom_killed(end, signal, lines):
        return _told(
            Fault.OOM_KILLED, "the kernel ended it for want of memory", exception.place if exception else None
        )
    words = last_words.last_words(lines[last:stop], end.exit_code)
    crash = last_words.of_signal(signal)
    if fatal is not None and crash is None and "Segmentation" in fatal.text:
        crash = Fault.SEGFAULT
    if crash is not None and (
        exception is None or len(lines) - exception.end > CRASH_LINES or fatal is not None
    ):
        place = own_code.last_own(fatal.frames, end.cwd) if fatal is not None else None
        line = words.line if words is not None and words.kind is crash else None
        return _told(crash, fatal.message if fatal is not None else line or f"ended by {signal}", place)
    if exception is not None and (words is None or end.signal_name != "SIGABRT"):
        return _told(exception.kind, exception.message, exception.place)
    if words is not None:
        return _told(words.kind, words.line, exception.place if exception is not None else None)
    return _told(Fault.UNKNOWN, _unknown(signal, lines[:stop]), None)


def _told(kind: Fault, message: str | None, place: Place | None) -> Triage:
    return Triage(kind, message, place, REMEDIES[kind])


def _is_launchers(raised: Raised, cwd: str) -> bool:
    """Return whether an exception only says that a process has failed: none of the user's code is in it."""
    return _LAUNCHER.match(raised.name) is not None and own_code.last_own(raised.frames, cwd) is None


def _was_oom_killed(end: SegmentEnd, signal: str | None, lines: Sequence[str]) -> bool:
    in_group, on_machine = end.oom_kills
    counted = in_group if in_group is not None else on_machine
    return bool(counted) and (signal == "SIGKILL" or (signal is None and last_words.worker_was_killed(lines)))


def _decide(raised: Sequence[Raised], stop: int, cwd: str) -> _Exception | None:
    """Return the exception that ended the program. `stop`: where a launcher reports that."""
    ends: dict[str, Raised] = {}
    for one in raised:
        if stop - one.end <= TRACEBACK_LINES or one.prefix.strip():
            ends[one.prefix] = one
    if not ends:
        return None
    first = [one for one in ends.values() if _FOLLOWS.search(one.message) is None]
    plain = [one for one in first if not one.prefix.strip()]
    return _told_by((plain[-1:] or first[:1] or list(ends.values()))[0], cwd)


def _told_by(last: Raised, cwd: str) -> _Exception:
    chain = list(last.chain)
    kinds = [kind_of(one.name, one.text) for one in chain]
    chosen = where = 0
    for number in range(1, len(chain)):
        # A generator's StopIteration is only how Python comes by its RuntimeError.
        if kinds[chosen] in _VAGUE and chain[number].name != "StopIteration":
            chosen = where = number
        elif chain[number].name == "StopIteration" or _is_same(chain[number], chain[number - 1]):
            where = number
    nearest = (*chain[where:], *reversed(chain[:where]))
    places = (place for one in nearest if (place := own_code.last_own(one.frames, cwd)) is not None)
    return _Exception(kinds[chosen], chain[chosen].message, next(places, None), last.end)


def _is_same(cause: Raised, raised: Raised) -> bool:
    """Return whether an exception was handed over by another process, with the traceback that it had there."""
    return (cause.name, cause.text.partition("\n")[0]) == (raised.name, raised.text.partition("\n")[0])


def _unknown(signal: str | None, lines: Sequence[str]) -> str | None:
    last = lines[-1].strip() if lines else None
    if signal is None:
        return last
    return f"ended by {signal}; its last line: {last}" if last is not None else f"ended by {signal}"


def _from_words(said: str) -> Triage:
    """Return what our own words tell, which have the last line of the log in them, or why there was no start."""
    match = _NAMED.search(said)
    kind = kind_of(match["name"], match["text"]) if match is not None else kind_of("OSError", said)
    return _told(Fault.UNKNOWN if match is None and kind is Fault.EXCEPTION else kind, said, None)
