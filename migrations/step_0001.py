"""Schema 1: runs with their groups and dependencies, segments, checkpoints, metrics, and the workers seen."""

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
        intent TEXT CHECK (intent IN ('timebox', 'stop', 'yield', 'limit', 'started over', 'outranked', 'nan')),
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
        CHECK ((paused_for IS NOT NULL) = (state = 'paused')),
        CHECK ((state IN ('running', 'paused')) = (worker IS NOT NULL)),
        CHECK ((state IN ('completed', 'failed', 'timeboxed', 'stopped')) = (ended_at_s IS NOT NULL)),
        CHECK (intent IS NULL OR state IN ('running', 'paused'))
    )
    """,
    "CREATE INDEX runs_by_turn ON runs (state, priority DESC, turn_s, id)",
    "CREATE INDEX runs_by_group ON runs (group_name, state) WHERE group_name IS NOT NULL",
    "CREATE INDEX runs_by_age ON runs (created_at_s)",
    "CREATE INDEX runs_by_state ON runs (state, created_at_s)",
    "CREATE INDEX runs_by_end ON runs (ended_at_s)",
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
        first_step INTEGER,
        cut_cost_s REAL,
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
    CREATE TABLE groups (
        name TEXT NOT NULL PRIMARY KEY,
        created_at_s REAL NOT NULL,
        max_parallel INTEGER CHECK (max_parallel >= 1),
        keep_share REAL CHECK (keep_share > 0 AND keep_share < 1),
        keep_every INTEGER CHECK (keep_every >= 1),
        keep_metric TEXT,
        keep_highest INTEGER NOT NULL CHECK (keep_highest IN (0, 1)),
        CHECK ((keep_share IS NULL) = (keep_every IS NULL)),
        CHECK ((keep_share IS NULL) = (keep_metric IS NULL))
    )
    """,
    """
    CREATE TABLE rankings (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        group_name TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
        round INTEGER NOT NULL,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        value REAL,
        kept INTEGER NOT NULL CHECK (kept IN (0, 1)),
        at_s REAL NOT NULL,
        UNIQUE (group_name, round, run_id)
    )
    """,
    """
    CREATE TABLE dependencies (
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        parent_id TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('success', 'any', 'fail')),
        PRIMARY KEY (run_id, parent_id)
    )
    """,
    "CREATE INDEX dependencies_by_parent ON dependencies (parent_id)",
    """
    CREATE TABLE metrics (
        serial INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        segment INTEGER NOT NULL,
        at_s REAL NOT NULL,
        step INTEGER,
        name TEXT NOT NULL,
        value REAL NOT NULL
    )
    """,
    "CREATE INDEX metrics_by_run ON metrics (run_id, name, serial)",
    """
    CREATE TABLE switches (
        name TEXT NOT NULL PRIMARY KEY CHECK (name IN ('drained')),
        why TEXT NOT NULL,
        since_s REAL NOT NULL
    )
    """,
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
