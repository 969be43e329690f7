"""Defines every error that a person can meet, with its exit code.

    BackpropError           1   (never raised itself)
    ├── UnknownRun          3   no run has that id, prefix or name
    ├── AmbiguousRun        4   several runs have that name or prefix
    ├── BadConfig           5   a configuration file or value was refused
    ├── BadCommand          6   the script or program to queue was refused
    │   └── KeyReused       6   another run has that key, and was queued with another command
    ├── HomeRefused         7   BACKPROP_HOME is not a private local folder of its user
    ├── DatabaseRefused     8   newer than this program, or not a database of Backprop
    │   └── DatabaseDamaged 8   the file is not a sound database; a starting worker repairs it
    ├── DatabaseBusy        9   another process held the database too long, or the disk is full
    ├── IllegalMove         10  the run's state does not allow what was asked
    │   └── LostRace        10  another process moved the run first
    └── ServiceRefused      11  the user's systemd is not there, or refused the service

Exit code 2 is Click's (usage). 20-23 are outcomes of `--follow` and `wait`, 24 is the doctor's when something is
bad, 25 is a drill's, 124 is that of `wait` when its time is over. None of these is an error, see `cli/exit_codes.py`.
"""


class BackpropError(Exception):
    """A refusal in one line: what was refused, why, and what to do. A bug never raises one."""

    exit_code = 1
    code = "refused"
    """What it is called in JSON."""


class UnknownRun(BackpropError):
    exit_code = 3
    code = "no-such-run"


class AmbiguousRun(BackpropError):
    exit_code = 4
    code = "ambiguous-run"


class BadConfig(BackpropError):
    exit_code = 5
    code = "bad-config"


class BadCommand(BackpropError):
    exit_code = 6
    code = "bad-command"


class KeyReused(BadCommand):
    code = "key-reused"


class HomeRefused(BackpropError):
    exit_code = 7
    code = "home-refused"


class DatabaseRefused(BackpropError):
    exit_code = 8
    code = "database-refused"


class DatabaseDamaged(DatabaseRefused):
    """SQLite reports that the file is malformed, not a database, or was deleted while open."""

    code = "database-damaged"


class DatabaseBusy(BackpropError):
    exit_code = 9
    code = "database-busy"


class IllegalMove(BackpropError):
    exit_code = 10
    code = "illegal-move"


class LostRace(IllegalMove):
    """A compare-and-set found another state: another process moved the run first."""

    code = "lost-race"


class ServiceRefused(BackpropError):
    exit_code = 11
    code = "service-refused"
