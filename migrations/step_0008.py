"""Schema 8: runs whose segments are jobs of a cluster, and the state of one that the cluster has not started yet.

SQLite changes no check of a table, so `runs` is made anew and filled from the old one; the runner keeps foreign keys
out of it meanwhile. `cluster` is null for what runs on this machine, which all that earlier programs wrote does.
`clusters` holds why nothing is handed to one now, when it last answered, and how many jobs of this home it had then.
"""

_COLUMNS = """
    id, name, state, reason, spec, script, created_at_s, queued_at_s, priority, turn_s, group_name,
    array_index, batch, started_at_s, ended_at_s, not_before_s, segment, worker, intent, intent_why,
    chain_start, chain_total_s, stalled, retries_used, lost, resume_pin, last_step, last_loss,
    exit_code, waiting, need_mib, oom_retries, paused_for, fault, unsatisfied_parent, host_faults,
    step_source, step_unit, step_total, loss_source, boxes, suspension, thaw_at_s,
    vram_stays, key
"""

STATEMENTS = (
    """
    CREATE TABLE runs_new (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('queued', 'submitted', 'running', 'paused', 'suspended', 'held', 'completed', 'failed', 'timeboxed',
            'stopped')),
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
        key TEXT,
        cluster TEXT,
        CHECK ((paused_for IS NOT NULL) = (state = 'paused')),
        CHECK ((state IN ('submitted', 'running', 'paused', 'suspended')) = (worker IS NOT NULL)),
        CHECK ((state IN ('completed', 'failed', 'timeboxed', 'stopped')) = (ended_at_s IS NOT NULL)),
        CHECK (intent IS NULL OR state IN ('submitted', 'running', 'paused', 'suspended'))
    )
    """,
    f"INSERT INTO runs_new ({_COLUMNS}) SELECT {_COLUMNS} FROM runs",
    "DROP TABLE runs",
    "ALTER TABLE runs_new RENAME TO runs",
    "CREATE INDEX runs_by_turn ON runs (state, cluster, priority DESC, turn_s, id)",
    "CREATE INDEX runs_by_group ON runs (group_name, state) WHERE group_name IS NOT NULL",
    "CREATE INDEX runs_by_age ON runs (created_at_s)",
    "CREATE INDEX runs_by_state ON runs (state, created_at_s)",
    "CREATE INDEX runs_by_end ON runs (ended_at_s, state)",
    "CREATE INDEX runs_by_name ON runs (name)",
    "CREATE INDEX runs_by_script ON runs (script, created_at_s)",
    "CREATE INDEX runs_by_unsatisfied_parent ON runs (unsatisfied_parent) WHERE unsatisfied_parent IS NOT NULL",
    "CREATE UNIQUE INDEX runs_by_key ON runs (key) WHERE key IS NOT NULL",
    "ALTER TABLE segments ADD COLUMN cluster TEXT",
    "ALTER TABLE segments ADD COLUMN token TEXT",
    "ALTER TABLE segments ADD COLUMN job TEXT",
    "ALTER TABLE segments ADD COLUMN node TEXT",
    "ALTER TABLE segments ADD COLUMN begun_at_s REAL",
    "ALTER TABLE segments ADD COLUMN engine_words TEXT",
    "CREATE UNIQUE INDEX segments_by_token ON segments (token) WHERE token IS NOT NULL",
    """
    CREATE TABLE clusters (
        name TEXT NOT NULL PRIMARY KEY,
        why TEXT,
        since_s REAL,
        until_s REAL,
        answered_at_s REAL,
        jobs INTEGER,
        CHECK ((why IS NULL) = (since_s IS NULL))
    )
    """,
)
