"""Schema 6: the state of a run whose processes are frozen until its next turn, and what is kept about that; how many
runs may run at once by their user's word, as a switch with a value;
in which hours a worker starts runs; how long the saves of a segment took; when it was suspended and went on.

SQLite changes no check of a table, so `runs` and `switches` are made anew and filled from the old ones; the runner
keeps foreign keys out of it meanwhile. `suspension` and `thaw_at_s` hold what a user has asked; a segment has the
number of the last order that was carried out to its end, the RAM that it keeps, and how much of its VRAM lies there.
`vram_stays` holds why that of a run cannot be moved.
"""

_COLUMNS = """
    id, name, state, reason, spec, script, created_at_s, queued_at_s, priority, turn_s, group_name,
    array_index, batch, started_at_s, ended_at_s, not_before_s, segment, worker, intent, intent_why,
    chain_start, chain_total_s, stalled, retries_used, lost, resume_pin, last_step, last_loss,
    exit_code, waiting, need_mib, oom_retries, paused_for, fault, unsatisfied_parent, host_faults,
    step_source, step_unit, step_total, loss_source, boxes
"""

STATEMENTS = (
    """
    CREATE TABLE runs_new (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('queued', 'running', 'paused', 'suspended', 'held', 'completed', 'failed', 'timeboxed', 'stopped')),
        reason TEXT NOT NULL,
        spec TEXT NOT NULL,
        script TEXT,
        created_at_s REAL NOT NULL,
        queued_at_s REAL NOT NULL,
        priority INTEGER NOT NULL,
        turn_s REAL NOT NULL,
        group_name TEXT,
        array_index INTEGER,
        batch TEXT,
        started_at_s REAL,
        ended_at_s REAL,
        not_before_s REAL NOT NULL,
        segment INTEGER NOT NULL CHECK (segment >= 0),
        worker TEXT,
        intent TEXT CHECK (intent IN ('timebox', 'stop', 'yield', 'limit', 'started over', 'outranked', 'nan',
            'stranded')),
        intent_why TEXT,
        chain_start INTEGER NOT NULL,
        chain_total_s REAL NOT NULL,
        stalled INTEGER NOT NULL,
        retries_used INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        resume_pin TEXT,
        last_step INTEGER,
        last_loss REAL,
        exit_code INTEGER,
        waiting TEXT,
        need_mib INTEGER,
        oom_retries INTEGER NOT NULL,
        paused_for TEXT,
        fault TEXT,
        unsatisfied_parent TEXT,
        host_faults INTEGER NOT NULL DEFAULT 0,
        step_source TEXT,
        step_unit TEXT,
        step_total INTEGER,
        loss_source TEXT,
        boxes INTEGER NOT NULL DEFAULT 0,
        suspension TEXT CHECK (suspension IN ('asked', 'kept')),
        thaw_at_s REAL,
        vram_stays TEXT,
        CHECK ((paused_for IS NOT NULL) = (state = 'paused')),
        CHECK ((state IN ('running', 'paused', 'suspended')) = (worker IS NOT NULL)),
        CHECK ((state IN ('completed', 'failed', 'timeboxed', 'stopped')) = (ended_at_s IS NOT NULL)),
        CHECK (intent IS NULL OR state IN ('running', 'paused', 'suspended'))
    )
    """,
    f"INSERT INTO runs_new ({_COLUMNS}) SELECT {_COLUMNS} FROM runs",
    "DROP TABLE runs",
    "ALTER TABLE runs_new RENAME TO runs",
    "CREATE INDEX runs_by_turn ON runs (state, priority DESC, turn_s, id)",
    "CREATE INDEX runs_by_group ON runs (group_name, state) WHERE group_name IS NOT NULL",
    "CREATE INDEX runs_by_age ON runs (created_at_s)",
    "CREATE INDEX runs_by_state ON runs (state, created_at_s)",
    "CREATE INDEX runs_by_end ON runs (ended_at_s, state)",
    "CREATE INDEX runs_by_name ON runs (name)",
    "CREATE INDEX runs_by_script ON runs (script, created_at_s)",
    "CREATE INDEX runs_by_unsatisfied_parent ON runs (unsatisfied_parent) WHERE unsatisfied_parent IS NOT NULL",
    "ALTER TABLE segments ADD COLUMN suspensions INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE segments ADD COLUMN kept_mib INTEGER",
    "ALTER TABLE segments ADD COLUMN vram_out_mib INTEGER",
    "ALTER TABLE segments ADD COLUMN saving_s REAL NOT NULL DEFAULT 0",
    """
    CREATE TABLE switches_new (
        name TEXT NOT NULL PRIMARY KEY CHECK (name IN ('drained', 'parallel')),
        why TEXT NOT NULL,
        since_s REAL NOT NULL,
        value INTEGER,
        CHECK ((value IS NOT NULL) = (name = 'parallel'))
    )
    """,
    "INSERT INTO switches_new (name, why, since_s) SELECT name, why, since_s FROM switches",
    "DROP TABLE switches",
    "ALTER TABLE switches_new RENAME TO switches",
    # JSON: the hours in which it starts runs; null where an earlier program wrote the row.
    "ALTER TABLE workers ADD COLUMN active_hours TEXT",
    """
    CREATE TABLE suspensions (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        segment INTEGER NOT NULL,
        ordered_at_s REAL NOT NULL,
        left_at_s REAL NOT NULL,
        claimed_at_s REAL,
        on_at_s REAL
    )
    """,
    "CREATE INDEX suspensions_by_run ON suspensions (run_id, segment)",
    "CREATE INDEX suspensions_by_end ON suspensions (on_at_s)",
)
