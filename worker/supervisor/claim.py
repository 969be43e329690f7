"""Decides once whether a segment of a cluster may begin: the first to link `started.json` has it, a node or the worker.

    started.json  by link(2)  the node that begins the segment, with the token of its order; or the worker's VOID
    revoked.json  worker      the segment is given up though it has begun: its node agent ends it
    ask, kill     worker      empty: the segment is to save and end; to end now
    beat.json     node agent  a number that rises, twelve times in the length of a lease
    ended-by.json node agent  whose wish it passes on to the supervisor, and whether all processes were sent TERM

Nothing replaces `started.json`: a second start of the same job finds it and goes. No clock of one machine is compared
with another's. Standard library only, imports nothing of Backprop: the worker and the node agent share it.
"""

STARTED = "started.json"
REVOKED = "revoked.json"
ASK, KILL = "ask", "kill"
BEAT = "beat.json"
ENDED_BY = "ended-by.json"
WISH, ENGINE = "wish", "engine"
VOID = "void"
"""The token of a claim by which a worker keeps a segment from ever beginning."""
FORMAT = 1
BEATS = 12
"""In the length of a lease."""


def body(token: str, **more: object) -> dict[str, object]:
    """Return what `started.json` is to hold. `more`: who begins, for people."""
    return {"format": FORMAT, "token": token, **more}
