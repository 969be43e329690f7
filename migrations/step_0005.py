"""Schema 5: what a report of the night needs: samples that say why nothing started, and changes of the wall clock.

Null where an earlier program took the sample. The indexes find the segments and ends of
one night among those of years.
"""

STATEMENTS = (
    "ALTER TABLE samples ADD COLUMN gpu_index INTEGER",
    "ALTER TABLE samples ADD COLUMN gpu_name TEXT",
    "ALTER TABLE samples ADD COLUMN total_mib INTEGER",
    "ALTER TABLE samples ADD COLUMN limit_c INTEGER",
    "ALTER TABLE samples ADD COLUMN power_w REAL",
    # JSON: the ids of the runs that lived on the GPU then.
    "ALTER TABLE samples ADD COLUMN run_ids TEXT",
    # JSON: why the head of the queue did not start then; with the sample of the host alone.
    "ALTER TABLE samples ADD COLUMN refusals TEXT",
    # The wall clock went ahead of running time by `by_s`, of which the machine slept `slept_s`.
    """
    CREATE TABLE clock_changes (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        at_s REAL NOT NULL,
        by_s REAL NOT NULL,
        slept_s REAL NOT NULL
    )
    """,
    "CREATE INDEX segments_by_end ON segments (ended_at_s)",
    # With the state, so that the ends of one night are counted without a look at the rows.
    "DROP INDEX runs_by_end",
    "CREATE INDEX runs_by_end ON runs (ended_at_s, state)",
)
