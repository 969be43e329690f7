"""Arranges runs for `list`: running ones, the next in turn, the failed and held of the last day, a count of the rest.

Pure: rows in, cells out.
"""

from collections.abc import Mapping, Sequence

import msgspec

from backprop.cli.render.json_views import NAN, duration, number
from backprop.scheduler.home.credentials import masked_value
from backprop.scheduler.lifecycle import FINAL, HAS_PROCESSES, State
from backprop.scheduler.records import RunRecord, SegmentRecord

RIGHT = ("TURN", "SEG", "STEP", "LOSS", "TIME", "ETA")
MOST_PARAMS = 4


class Picture(msgspec.Struct, frozen=True):
    """Runs by what one wants to know first. `segments`: the live ones by run. `left`: of their boxes, see `box_ends`.
    `counts`: of all that pass the filters, no further than one beyond `counted`, where that is given. `eta`: words by
    run."""

    live: Sequence[RunRecord]
    queued: Sequence[RunRecord]
    recent: Sequence[RunRecord]
    segments: Mapping[str, SegmentRecord]
    counts: Mapping[State, int]
    eta: Mapping[str, str] = {}
    left: Mapping[str, float | None] = {}
    counted: int | None = None

    def cut(self, room: int) -> "Picture":
        """Return what fits into so many rows: all that run, the newest troubles, then the next in turn."""
        live = self.live[:room]
        left = max(room - len(live), 0)
        recent = self.recent[: max(min(left, room // 3 or 1), left - len(self.queued))]
        queued = self.queued[: max(left - len(recent), 0)]
        return msgspec.structs.replace(self, live=live, queued=queued, recent=recent)

    @property
    def shown(self) -> Sequence[RunRecord]:
        """The runs in the order of their rows."""
        return [*self.live, *self.queued, *self.recent]

    def rest(self) -> str:
        """Return how many are not shown, by state; empty for none."""
        shown = [run.state for run in self.shown]
        words: list[str] = []
        for state, count in self.counts.items():
            more = count - shown.count(state)
            if self.counted is not None and count > self.counted:
                words.append(f"more than {self.counted - shown.count(state):,} {state}")
            elif more > 0:
                words.append(f"{more:,} {state}")
        return ", ".join(words)


def rows_of(picture: Picture, now_s: float, with_ids: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and the rows of an overview. `with_ids`: show ids even where names tell the runs apart."""
    runs = picture.shown
    ids = with_ids or len({run.name for run in runs}) < len(runs)
    turns = {run.id: str(place) for place, run in enumerate(picture.queued, 1)}
    keys = parameters(runs)
    columns = (
        *(("ID",) if ids else ()),
        "NAME",
        "STATE",
        *(("TURN",) if turns else ()),
        "SEG",
        "STEP",
        "LOSS",
        "TIME",
        *(("ETA",) if picture.eta else ()),
        *keys,
        "REASON",
    )
    rows: list[tuple[str, ...]] = []
    before = ""
    for run in runs:
        same = run.reason == before
        before = run.reason
        rows.append(
            (
                *((run.id,) if ids else ()),
                run.name,
                run.state.value,
                *((turns.get(run.id, ""),) if turns else ()),
                str(run.segment),
                step(run),
                loss(run),
                time_of(run, picture.segments.get(run.id), picture.left.get(run.id), now_s),
                *((picture.eta.get(run.id, "-"),) if picture.eta else ()),
                *(masked_value(key, run.spec.params.get(key, "-")) for key in keys),
                '"' if same else run.reason,
            )
        )
    return columns, rows


def parameters(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the parameters in which these runs differ, at most `MOST_PARAMS`."""
    keys = dict.fromkeys(key for run in runs for key in run.spec.params)
    differing = (key for key in keys if len({run.spec.params.get(key) for run in runs}) > 1)
    return tuple(differing)[:MOST_PARAMS]


def step(run: RunRecord) -> str:
    """Return the last step, and of how many; "-" for none."""
    if run.last_step is None:
        return "-"
    if not run.step_total:
        return str(run.last_step)
    return f"{run.last_step}/{run.step_total}"


def loss(run: RunRecord) -> str:
    """Return the last loss; "-" for none."""
    return "nan" if run.fault == NAN else number(run.last_loss)


def time_of(run: RunRecord, segment: SegmentRecord | None, left_s: float | None, now_s: float) -> str:
    """Return what is left of its box while it runs, else how long it has run; "-" where it has not."""
    if run.state in HAS_PROCESSES and segment is not None:
        return duration(now_s - segment.started_at_s) if left_s is None else f"{clock_face(left_s)} left"
    if run.started_at_s is None:
        return "-"
    return duration(run.chain_total_s) if run.chain_total_s or run.state in FINAL else "-"


def clock_face(seconds: float) -> str:
    """Return seconds as 7:22 or 1:02:03; nothing is below zero."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
