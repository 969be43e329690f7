"""Describes the tables as peewee models.

Only modules of this package import it; the rest of the program gets frozen records. `migrations` creates the tables,
and a test holds the two against each other. Units are in the column names: `_s` seconds (a time: Unix seconds), `_mib`
MiB, `_c` °C. What a column means stands with the field of its record, in `scheduler.records`.

The models are bound to one database file for the life of the process (see `connection.open_database`): peewee's
models carry their database, and a Backprop process has one home.
"""

# Each table has a Meta of its own: peewee reads it when the class is made, and inherits by copying.
# pyright: reportIncompatibleVariableOverride=false

from peewee import (
    AutoField,
    BooleanField,
    CompositeKey,
    FloatField,
    IntegerField,
    Model,
    TextField,
)

from backprop.scheduler.store.connection import proxy


class Table(Model):
    class Meta:
        database = proxy


class Run(Table):
    """`unsatisfied_parent`: the dependency that can never be met, or only by its user's word, of a waiting run that
    stays nevertheless."""

    id = TextField(primary_key=True)
    name = TextField()
    state = TextField()
    reason = TextField()
    spec = TextField()
    script = TextField(null=True)
    created_at_s = FloatField()
    queued_at_s = FloatField()
    priority = IntegerField()
    turn_s = FloatField()
    group_name = TextField(null=True)
    array_index = IntegerField(null=True)
    batch = TextField(null=True)
    started_at_s = FloatField(null=True)
    ended_at_s = FloatField(null=True)
    not_before_s = FloatField()
    segment = IntegerField()
    worker = TextField(null=True)
    intent = TextField(null=True)
    intent_why = TextField(null=True)
    chain_start = IntegerField()
    chain_total_s = FloatField()
    stalled = IntegerField()
    retries_used = IntegerField()
    lost = IntegerField()
    resume_pin = TextField(null=True)
    last_step = IntegerField(null=True)
    last_loss = FloatField(null=True)
    exit_code = IntegerField(null=True)
    waiting = TextField(null=True)
    need_mib = IntegerField(null=True)
    oom_retries = IntegerField()
    paused_for = TextField(null=True)
    fault = TextField(null=True)
    host_faults = IntegerField(default=0)
    unsatisfied_parent = TextField(null=True)
    step_source = TextField(null=True)
    step_unit = TextField(null=True)
    step_total = IntegerField(null=True)
    loss_source = TextField(null=True)
    boxes = IntegerField(default=0)
    suspension = TextField(null=True)
    thaw_at_s = FloatField(null=True)
    vram_stays = TextField(null=True)
    key = TextField(null=True)
    cluster = TextField(null=True)

    class Meta:
        table_name = "runs"


class Segment(Table):
    serial = AutoField()
    run_id = TextField()
    number = IntegerField()
    worker = TextField()
    started_at_s = FloatField()
    ended_at_s = FloatField(null=True)
    outcome = TextField(null=True)
    reason = TextField(null=True)
    exit_code = IntegerField(null=True)
    signal_name = TextField(null=True)
    running_s = FloatField(null=True)
    checkpoint_used = TextField(null=True)
    gpu_uuids = TextField()
    promised_mib = IntegerField()
    need_source = TextField()
    exclusive = BooleanField()
    peak_mib = IntegerField(null=True)
    steps_from = IntegerField(null=True)
    first_output_s = FloatField(null=True)
    first_step = IntegerField(null=True)
    cut_cost_s = FloatField(null=True)
    log_offset = IntegerField()
    events_offset = IntegerField()
    bad_events = IntegerField()
    step_unit = TextField(null=True)
    step_total = IntegerField(null=True)
    step_fell = BooleanField(null=True)
    boxes = IntegerField(default=1)
    first_step_s = FloatField(null=True)
    suspensions = IntegerField(default=0)
    kept_mib = IntegerField(null=True)
    vram_out_mib = IntegerField(null=True)
    saving_s = FloatField(default=0.0)
    cluster = TextField(null=True)
    token = TextField(null=True)
    job = TextField(null=True)
    node = TextField(null=True)
    begun_at_s = FloatField(null=True)
    engine_words = TextField(null=True)

    class Meta:
        table_name = "segments"


class SuspensionRow(Table):
    serial = AutoField()
    run_id = TextField()
    segment = IntegerField()
    ordered_at_s = FloatField()
    left_at_s = FloatField()
    claimed_at_s = FloatField(null=True)
    on_at_s = FloatField(null=True)

    class Meta:
        table_name = "suspensions"


class Checkpoint(Table):
    serial = AutoField()
    run_id = TextField()
    segment = IntegerField()
    path = TextField()
    step = IntegerField(null=True)
    size_bytes = IntegerField()
    mtime_ns = IntegerField()
    is_dir = BooleanField()
    saved_at_s = FloatField()
    refused = TextField(null=True)
    seen_step = IntegerField(null=True)
    attribution = TextField(null=True)
    observed = BooleanField(null=True)

    class Meta:
        table_name = "checkpoints"


class Group(Table):
    """`over_why`: its goal is met or its running time used up, in words; None while it is not."""

    name = TextField(primary_key=True)
    created_at_s = FloatField()
    max_parallel = IntegerField(null=True)
    keep_share = FloatField(null=True)
    keep_every = IntegerField(null=True)
    keep_metric = TextField(null=True)
    keep_highest = BooleanField()
    until = TextField(null=True)
    max_total_s = FloatField(null=True)
    over_why = TextField(null=True)

    class Meta:
        table_name = "groups"


class Ranking(Table):
    serial = AutoField()
    group_name = TextField()
    round = IntegerField()
    run_id = TextField()
    place = IntegerField()
    value = FloatField(null=True)
    kept = BooleanField()
    at_s = FloatField()

    class Meta:
        table_name = "rankings"


class Dependency(Table):
    run_id = TextField()
    parent_id = TextField()
    kind = TextField()

    class Meta:
        table_name = "dependencies"
        primary_key = CompositeKey("run_id", "parent_id")


class Metric(Table):
    serial = AutoField()
    run_id = TextField()
    segment = IntegerField()
    at_s = FloatField()
    step = IntegerField(null=True)
    name = TextField()
    value = FloatField()
    source = TextField(null=True)

    class Meta:
        table_name = "metrics"


class Switch(Table):
    name = TextField(primary_key=True)
    why = TextField()
    since_s = FloatField()
    value = IntegerField(null=True)

    class Meta:
        table_name = "switches"


class KnownRequest(Table):
    number = IntegerField(primary_key=True)

    class Meta:
        table_name = "known_requests"


class Worker(Table):
    id = TextField(primary_key=True)
    pid = IntegerField()
    max_parallel = IntegerField()
    started_at_s = FloatField()
    stopped_at_s = FloatField(null=True)
    active_hours = TextField(null=True)

    class Meta:
        table_name = "workers"


class ClusterState(Table):
    name = TextField(primary_key=True)
    why = TextField(null=True)
    since_s = FloatField(null=True)
    until_s = FloatField(null=True)
    answered_at_s = FloatField(null=True)
    jobs = IntegerField(null=True)

    class Meta:
        table_name = "clusters"


class Quarantine(Table):
    gpu_uuid = TextField(primary_key=True)
    worker = TextField()
    reason = TextField()
    since_s = FloatField()

    class Meta:
        table_name = "quarantine"


class GpuForeignPeak(Table):
    gpu_uuid = TextField(primary_key=True)
    mib = IntegerField()
    pids = TextField()
    at_s = FloatField()

    class Meta:
        table_name = "foreign_peaks"


class Sample(Table):
    serial = AutoField()
    at_s = FloatField()
    gpu_uuid = TextField(null=True)
    free_mib = IntegerField(null=True)
    temp_c = IntegerField(null=True)
    utilisation_pct = IntegerField(null=True)
    load_1m = FloatField(null=True)
    gpu_index = IntegerField(null=True)
    gpu_name = TextField(null=True)
    total_mib = IntegerField(null=True)
    limit_c = IntegerField(null=True)
    power_w = FloatField(null=True)
    run_ids = TextField(null=True)
    refusals = TextField(null=True)
    disks = TextField(null=True)

    class Meta:
        table_name = "samples"


class ClockStep(Table):
    serial = AutoField()
    at_s = FloatField()
    by_s = FloatField()
    slept_s = FloatField()

    class Meta:
        table_name = "clock_changes"
