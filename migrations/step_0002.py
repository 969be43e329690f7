"""Schema 2: what other programs were last seen to use of each GPU."""

STATEMENTS = (
    # To be merged with whatever else the second schema brings: one numbered step per release.
    """
    CREATE TABLE foreign_peaks (
        gpu_uuid TEXT NOT NULL PRIMARY KEY,
        mib INTEGER NOT NULL,
        pids TEXT NOT NULL,
        at_s REAL NOT NULL
    )
    """,
)
