"""Specs and chains for tests of what a segment's end means."""

import msgspec
from msgspec.structs import replace

from backprop.scheduler.outcome.move import NextMove, with_advice
from backprop.scheduler.outcome.segment_result import Chain
from backprop.scheduler.spec import RunSpec

SPEC = RunSpec(argv=("python", "train.py"), program="/usr/bin/python", cwd="/project")
FRESH = Chain(segments=1, total_s=600.0, stalled=0, retries_used=0, lost=0, progressed=False, resumable=False)
GOOD = replace(FRESH, progressed=True, resumable=True)
OLD = replace(FRESH, resumable=True)
"""Nothing new was saved, but an older checkpoint is known."""


def spec(**changes: object) -> RunSpec:
    return msgspec.structs.replace(SPEC, **changes)


def told(move: NextMove) -> str:
    """What the user of run 4123-1 reads."""
    return with_advice(move, "4123-1").reason
