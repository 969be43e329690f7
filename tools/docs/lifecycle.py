"""Draws the lifecycle table as a Mermaid state diagram, for the docs: `python -m tools.docs.lifecycle`."""

from backprop.scheduler.lifecycle import TRANSITIONS, State


def mermaid() -> str:
    """The table as a Mermaid state diagram, one line a move, grouped by (from, to). Drawn into the docs."""
    grouped: dict[tuple[State, State], list[str]] = {}
    for (source, event), target in TRANSITIONS.items():
        grouped.setdefault((source, target), []).append(event.value)
    lines = ["stateDiagram-v2", "    [*] --> queued: enqueued"]
    lines += [
        f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in grouped.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(mermaid())
