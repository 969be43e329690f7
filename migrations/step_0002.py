"""Schema 2: a column for a waiting run's failed parent, and a table for the peaks of other programs.

Schema 1 kept the parent in the run's reason alone: "waited for 3fa2 to complete, which has failed; kept: backprop
resume 3fa2". The last word is taken from there, where it is a parent of the run. What other programs were last seen
to use of each GPU was known to one worker alone.
"""

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN unsatisfied_parent TEXT",
    """
    CREATE INDEX runs_by_unsatisfied_parent ON runs (unsatisfied_parent) WHERE unsatisfied_parent IS NOT NULL
    """,
    """
    UPDATE runs SET unsatisfied_parent = substr(reason, instr(reason, '; kept: backprop resume ') + 24)
    WHERE state IN ('queued', 'held') AND segment = 0 AND instr(reason, '; kept: backprop resume ') > 0
        AND substr(reason, instr(reason, '; kept: backprop resume ') + 24) IN
            (SELECT parent_id FROM dependencies WHERE run_id = runs.id)
    """,
    """
    CREATE TABLE foreign_peaks (
        gpu_uuid TEXT NOT NULL PRIMARY KEY,
        mib INTEGER NOT NULL,
        pids TEXT NOT NULL,
        at_s REAL NOT NULL
    )
    """,
)
