"""The note on a hang, and what is known of a run's rhythm."""

from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.store.connection import Database
from backprop.worker.segments.hang import note
from tests.support.store_rows import add_run


@pytest.mark.parametrize(
    ("intent", "why", "counts"),
    [
        (Intent.YIELD, "hung: x", True),
        (None, None, True),
        (Intent.YIELD, "asked to make room", False),
        (Intent.STOP, None, False),
    ],
)
def test_a_note_counts_only_for_the_end_that_it_was_written_for(
    database: Database, tmp_path: Path, intent: Intent | None, why: str | None, counts: bool
) -> None:
    """Its worker may have died before the run was asked to end, and the run may have gone on."""
    run = msgspec.structs.replace(add_run(database, "r1", State.RUNNING), intent=intent, intent_why=why)
    assert note.why_hung(tmp_path, run) is None
    note.write(tmp_path, note.HangFile(why="hung: x", silent_s=700.0, usual_s=1.0, at_s=0.0))
    assert (note.why_hung(tmp_path, run) is not None) == counts
    (tmp_path / note.HANG).write_text("{")
    assert note.why_hung(tmp_path, run) is None
