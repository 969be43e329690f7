"""Schema 1: runs, their segments and checkpoints, and the workers seen."""

STATEMENTS = (
    """
    CREATE TABLE runs (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('queued', 'running', 'paused', 'held', 'completed', 'failed', 'timeboxed', 'stopped')),
        reason TEXT NOT NULL,
        spec TEXT NOT NULL,
        script TEXT,
        created_at_s REAL NOT NULL,
        queued_at_s REAL NOT NULL,
        started_at_s REAL,
        ended_at_s REAL,
        not_before_s REAL NOT NULL,
        segment INTEGER NOT NULL CHECK (segment >= 0),
        worker TEXT,
        intent TEXT CHECK (intent IN ('stop', 'yield', 'limit')),
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
        CHECK ((paused_for IS NOT NULL) = (state = 'paused')),
        CHECK ((state IN ('running', 'paused')) = (worker IS NOT NULL)),
        CHECK ((state IN ('completed', 'failed', 'timeboxed', 'stopped')) = (ended_at_s IS NOT NULL)),
        CHECK (intent IS NULL OR state IN ('running', 'paused'))
    )
    """,
    "CREATE INDEX runs_by_queue ON runs (state, queued_at_s)",
    "CREATE INDEX runs_by_age ON runs (created_at_s)",
    "CREATE INDEX runs_by_name ON runs (name)",
    "CREATE INDEX runs_by_script ON runs (script, created_at_s)",
    """
    CREATE TABLE segments (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL CHECK (number >= 1),
        worker TEXT NOT NULL,
        started_at_s REAL NOT NULL,
        ended_at_s REAL,
        outcome TEXT,
        reason TEXT,
        exit_code INTEGER,
        signal_name TEXT,
        running_s REAL,
        checkpoint_used TEXT,
        gpu_uuids TEXT NOT NULL,
        promised_mib INTEGER NOT NULL,
        need_source TEXT NOT NULL,
        exclusive INTEGER NOT NULL CHECK (exclusive IN (0, 1)),
        peak_mib INTEGER,
        steps_from INTEGER,
        first_output_s REAL,
        log_offset INTEGER NOT NULL,
        events_offset INTEGER NOT NULL,
        bad_events INTEGER NOT NULL,
        UNIQUE (run_id, number),
        CHECK ((ended_at_s IS NULL) = (outcome IS NULL))
    )
    """,
    "CREATE INDEX segments_alive ON segments (ended_at_s) WHERE ended_at_s IS NULL",
    """
    CREATE TABLE checkpoints (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        segment INTEGER NOT NULL,
        path TEXT NOT NULL,
        step INTEGER,
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        is_dir INTEGER NOT NULL CHECK (is_dir IN (0, 1)),
        saved_at_s REAL NOT NULL,
        refused TEXT
    )
    """,
    "CREATE INDEX checkpoints_by_run ON checkpoints (run_id, serial)",
    """
    CREATE TABLE workers (
        id TEXT NOT NULL PRIMARY KEY,
        pid INTEGER NOT NULL,
        max_parallel INTEGER NOT NULL,
        started_at_s REAL NOT NULL,
        stopped_at_s REAL
    )
    """,
    """
    CREATE TABLE quarantine (
        gpu_uuid TEXT NOT NULL PRIMARY KEY,
        worker TEXT NOT NULL,
        reason TEXT NOT NULL,
        since_s REAL NOT NULL
    )
    """,
    """
    CREATE TABLE samples (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        at_s REAL NOT NULL,
        gpu_uuid TEXT,
        free_mib INTEGER,
        temp_c INTEGER,
        utilisation_pct INTEGER,
        load_1m REAL
    )
    """,
    "CREATE INDEX samples_by_time ON samples (at_s)",
)
