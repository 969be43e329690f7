"""Schema 4: where a run's numbers come from: announced, or read out of its plain output, and what they count.

Null where an earlier program wrote the row: all of its numbers were announced. How many timeboxes a run and its segment
have begun, which an earlier program takes for as many as there are segments; when a segment came to its first step.
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
    "ALTER TABLE runs ADD COLUMN boxes INTEGER NOT NULL DEFAULT 0",
    "UPDATE runs SET boxes = segment",
    "ALTER TABLE segments ADD COLUMN boxes INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE segments ADD COLUMN first_step_s REAL",
    # How it is known that this run alone wrote a checkpoint.
    "ALTER TABLE checkpoints ADD COLUMN attribution TEXT",
    # It was seen on disk where no pattern had named it.
    "ALTER TABLE checkpoints ADD COLUMN observed INTEGER",
)
