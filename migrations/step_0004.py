"""Schema 4: where a run's numbers come from: announced, or read out of its plain output, and what they count.

Null where an earlier program wrote the row: all of its numbers were announced.
"""

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN step_source TEXT",
    "ALTER TABLE runs ADD COLUMN step_unit TEXT",
    "ALTER TABLE runs ADD COLUMN step_total INTEGER",
    "ALTER TABLE runs ADD COLUMN loss_source TEXT",
    "ALTER TABLE segments ADD COLUMN step_unit TEXT",
    "ALTER TABLE segments ADD COLUMN step_total INTEGER",
    "ALTER TABLE segments ADD COLUMN step_fell INTEGER",
    "ALTER TABLE checkpoints ADD COLUMN seen_step INTEGER",
    "ALTER TABLE metrics ADD COLUMN source TEXT",
    # How it is known that this run alone wrote a checkpoint.
    "ALTER TABLE checkpoints ADD COLUMN attribution TEXT",
    # It was seen on disk where no pattern had named it.
    "ALTER TABLE checkpoints ADD COLUMN observed INTEGER",
)
