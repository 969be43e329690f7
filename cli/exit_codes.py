"""What a followed run's end means as an exit code, and those of the doctor and the drill."""

from typing import Final

from backprop.scheduler.lifecycle import State

EXIT_CODE: Final = {
    State.COMPLETED: 0,
    State.FAILED: 20,
    State.TIMEBOXED: 21,
    State.STOPPED: 22,
    State.HELD: 23,
}
"""Not the script's own code: that is in `backprop show`, and would be mistaken for one of ours."""

DOCTOR_FOUND: Final = 24
"""`backprop doctor` found something bad."""

DRILL_FAILED: Final = 25
"""`backprop drill`: the script cannot be chained, or that could not be seen."""
