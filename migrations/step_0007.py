"""Schema 7: the key that a user has given a run, which no other run has.

Null where none was given, which earlier programs could not, and where another run had the key first.
"""

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN key TEXT",
    "CREATE UNIQUE INDEX runs_by_key ON runs (key) WHERE key IS NOT NULL",
)
