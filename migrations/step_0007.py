"""Schema 7: the key that a user has given a run, which no other run has; when a group has had enough; and
how much room there was on the disks.

A key is null where none was given, which earlier programs could not, and where another run had the key first. A group
without a goal (`until`) and a limit (`max_total_s`) is never over (`over_why`).
"""

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN key TEXT",
    "CREATE UNIQUE INDEX runs_by_key ON runs (key) WHERE key IS NOT NULL",
    "ALTER TABLE groups ADD COLUMN until TEXT",
    "ALTER TABLE groups ADD COLUMN max_total_s REAL",
    "ALTER TABLE groups ADD COLUMN over_why TEXT",
    "ALTER TABLE samples ADD COLUMN disks TEXT",
)
