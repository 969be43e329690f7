"""Every error a person can meet, with its exit code.

    BackpropError           1   (never raised itself)
    ├── UnknownRun          3   no run has that id, prefix or name
    ├── AmbiguousRun        4   several runs have that name or prefix
    ├── BadConfig           5   a configuration file or value was refused
    ├── BadCommand          6   the script or program to queue was refused
    ├── HomeRefused         7   BACKPROP_HOME is not a private local folder of ours
    ├── DatabaseRefused     8   newer than this program, or not ours
    │   └── DatabaseDamaged 8   what is there is not a sound database; a worker's start repairs it
    ├── DatabaseBusy        9   another process held the database too long, or the disk is full
    ├── IllegalMove         10  the run's state does not allow what was asked
    └── LostRace            10  another process moved the run first

Exit code 2 is Click's (usage). 20-23 are outcomes of `--follow`, 24 is the doctor's when something is bad,
25 a drill's: no errors either, see `cli/outcome.py`.
"""


class BackpropError(Exception):
    """A refusal, in one line: what was refused, why, and what to do. A bug is never one of these."""

    exit_code = 1


class UnknownRun(BackpropError):
    exit_code = 3


class AmbiguousRun(BackpropError):
    exit_code = 4


class BadConfig(BackpropError):
    exit_code = 5


class BadCommand(BackpropError):
    exit_code = 6


class HomeRefused(BackpropError):
    exit_code = 7


class DatabaseRefused(BackpropError):
    exit_code = 8


class DatabaseDamaged(DatabaseRefused):
    """SQLite says that the file is malformed, no database at all, or deleted under us."""


class DatabaseBusy(BackpropError):
    exit_code = 9


class IllegalMove(BackpropError):
    exit_code = 10


class LostRace(IllegalMove):
    """A compare-and-set found another state: somebody else moved the run first."""
