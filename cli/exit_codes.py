"""Lists the exit codes that are not refusals; those are in `scheduler/errors.py`."""

from typing import Final

from backprop.scheduler.lifecycle import State

OF_STATE: Final = {
    State.COMPLETED: 0,
    State.FAILED: 20,
    State.TIMEBOXED: 21,
    State.STOPPED: 22,
    State.HELD: 23,
}
"""Of a run that was followed or waited for. Not the script's own code, which could be mistaken for one of these;
`backprop show` has that."""

DOCTOR_FOUND: Final = 24
"""`backprop doctor` found something bad."""

DRILL_FAILED: Final = 25
"""`backprop drill`: the script cannot be chained, or the drill could not show whether it can."""

OUTPUT_LOST: Final = 26
"""What was asked for is done, and what was to be said of it could not be written. To repeat it would do it twice."""

STILL_GOING: Final = 124
"""`backprop wait`: its time is over before the runs have ended; as coreutils' `timeout` says it."""

INTERRUPTED: Final = 130
"""By Ctrl-C, as a shell reports it."""
