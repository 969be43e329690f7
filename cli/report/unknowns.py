"""Says what nobody knows of where a night's time went, and in which account it stands: for those who read the books."""

from collections.abc import Iterator

from backprop.cli.report.books import Account
from backprop.cli.report.night import Night
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome


def unknowns(night: Night) -> Iterator[str]:
    """Yield what is unknown in this night."""
    if any(one.total(Account.TRAINING) for one in night.books):
        yield "Saving is what is known of saves; the rest of them stands under training."
    if any(one.total(Account.SAVING) or one.total(Account.PAUSED) for one in night.books):
        yield "When in its segment a run saved or was paused is not known: drawn at the end."
    if any(one.ended_at_s is None for one in night.segments):
        yield "What still runs has its pauses and its lost work under training until it ends."
    if any(one.outcome is SegmentOutcome.LOST and one.cut_cost_s is None for one in night.segments):
        yield "A lost segment's time after its last save counts as redone."
