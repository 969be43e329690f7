"""Writes docs/design/lifecycle.md from the table of states: `python -m tools.docs.lifecycle`."""

from collections.abc import Iterator
from typing import Final

from backprop.scheduler.lifecycle import (
    DESCRIPTION,
    FINAL,
    HAS_PROCESSES,
    HOLDS_A_SLOT,
    HOLDS_VRAM,
    TRANSITIONS,
    State,
)
from tools.docs.printing import print_page

HEAD: Final = """# The life of a run

<!-- Generated: python -m tools.docs.lifecycle > docs/design/lifecycle.md -->

A run is in one of {count} states. Every legal move is a row of the table in `scheduler/lifecycle.py`, from which this
page is made; a move that is not in the table is refused. In the database a move is a compare-and-set on the state and
the segment number, so two processes never make the same move twice.

How a segment ended (exit code, signal, lost, out of memory) is kept beside the state, not as more states. Every state
has a reason in words, which `backprop list` and `show` print.

```mermaid
{diagram}
```
"""


def page() -> str:
    """Return the whole page, ending with a newline."""
    head = HEAD.format(count=len(State), diagram=mermaid())
    return "\n".join([head, *("\n".join(_section(state)) for state in State)]).rstrip("\n") + "\n"


def mermaid() -> str:
    """Return the table as a Mermaid state diagram: one line per pair of states that a move connects."""
    grouped: dict[tuple[State, State], list[str]] = {}
    for (source, event), target in TRANSITIONS.items():
        grouped.setdefault((source, target), []).append(event.value)
    lines = ["stateDiagram-v2", "    [*] --> queued: enqueued"]
    lines += [
        f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in grouped.items()
    ]
    return "\n".join(lines)


def _section(state: State) -> Iterator[str]:
    """Yield the lines about one state: its description, and each move into it and out of it."""
    yield f"## {state}\n"
    description = DESCRIPTION[state]
    kind = " Final: only `backprop resume` leaves it." if state in FINAL else ""
    if state in HAS_PROCESSES:
        counts = "counts" if state in HOLDS_A_SLOT else "does not count"
        keeps = " and keeps its reservation" if state in HOLDS_VRAM else ""
        kind = f" Live: the run {counts} against the parallel limit{keeps}."
    yield f"{description[0].upper()}{description[1:]}.{kind}\n"
    into = [f"*{event}* from {source}" for (source, event), target in TRANSITIONS.items() if target is state]
    if state is State.QUEUED:
        into.insert(0, "*enqueued*")
    out = [f"*{event}* to {target}" for (source, event), target in TRANSITIONS.items() if source is state]
    yield f"- Entered: {', '.join(into)}."
    yield f"- Left: {', '.join(out)}.\n"


if __name__ == "__main__":
    print_page("docs/design/lifecycle.md", page, "lifecycle")
