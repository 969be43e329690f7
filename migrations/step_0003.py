"""Schema 3: what a run is held for, so that it is released once its files are back; the users' requests that are known;
how often the host's trouble ended a run.

Earlier programs held such a run with a reason alone. Its beginning, which no user can have given, tells. The one row of
`known_requests` holds the number of the last request that the database knows, see `scheduler/home/request_log.py`.
"""

STATEMENTS = (
    """
    UPDATE runs SET waiting = json_array(json_object('rule', 'missing path', 'text', reason, 'since_s', queued_at_s))
    WHERE state = 'held' AND waiting IS NULL AND (
        reason LIKE 'none of its checkpoints is good any more (%; backprop resume %'
        OR reason LIKE 'the checkpoint to resume from is gone: %; backprop resume %')
    """,
    "CREATE TABLE known_requests (number INTEGER NOT NULL PRIMARY KEY)",
    "ALTER TABLE runs ADD COLUMN host_faults INTEGER NOT NULL DEFAULT 0",
)
