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

MEANINGS: Final = (
    ("0", "done, or nobody reads its output any more (`… | head -1`); with `--follow` or `wait`: completed"),
    ("2", "usage"),
    ("3, 4", "no such run; the name or prefix fits several"),
    ("5, 6", "a setting or file was refused; the script or program was refused"),
    (
        "7, 8, 9",
        "the home folder is not safe to use; the database is newer, damaged or not ours; it is locked, or the disk is"
        " full",
    ),
    ("10", "the run's state does not allow it"),
    ("11", "systemd is not there, or refused the service"),
    ("20, 21, 22, 23", "`--follow`, `wait`: the run failed, was timeboxed, stopped, held"),
    ("24", "`doctor` found something bad"),
    ("25", "`drill`: the script does not resume, or that is unclear"),
    ("26", "done, and only the output cannot be written (a full disk): do not repeat it"),
    ("124", "`wait`: still going at the timeout"),
    ("130", "interrupted"),
)
"""What a user is told, in the manual page and in docs/exit-codes.md."""
