"""Where in the queue: the options of `run` that say whose turn it is, after what, and with whom.

`--keep-best 50%/3 --metric loss`: which members of a group are to go on, as typed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from backprop.cli.completion import complete_parents
from backprop.scheduler.errors import BadCommand, UnknownRun
from backprop.scheduler.spec import DependencyKind, GroupRules, QueuePosition

if TYPE_CHECKING:
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.connection import Database

import re

F = TypeVar("F", bound=Callable[..., Any])

AFTER: Final[tuple[tuple[str, DependencyKind], ...]] = (
    ("after", "success"),
    ("after_any", "any"),
    ("after_fail", "fail"),
)
MOST_LINKS: Final = 200_000
INSTEAD: Final[dict[DependencyKind, str]] = {
    "success": "resume it first, or use --after-any",
    "fail": "there is nothing to wait for",
    "any": "",
}


def position_options(command: F) -> F:
    """--priority, --begin, --order, --hold, --after…, --keep, --group, --parallel."""
    for option in (
        click.option("--metric", metavar="NAME[:max]", help="What --keep-best goes by.  [default: loss, lowest first]"),
        click.option("--keep-best", metavar="SHARE%/N",
                     help="After every N segments of each member of the group, stop all but the best SHARE."),
        click.option("--parallel", type=click.IntRange(1, 10_000), metavar="N",
                     help="At most N runs of the group at once."),
        click.option("--group", metavar="NAME", help="Put it into a group, a new one or one that is there."),
        click.option("--keep", is_flag=True,
                     help="Stay queued when --after can never be met.  [default: end as stopped]"),
        click.option("--after-fail", multiple=True, metavar="RUN,…", shell_complete=complete_parents,
                     help="Start once these have failed or stopped."),
        click.option("--after-any", multiple=True, metavar="RUN,…", shell_complete=complete_parents,
                     help="Start once these have ended, however."),
        click.option("--after", multiple=True, metavar="RUN,…", shell_complete=complete_parents,
                     help="Start once these have completed; runs or groups, repeatable."),
        click.option("--hold", is_flag=True, help="Queue it held; `backprop release` lets it start."),
        click.option("--order", type=click.Choice(["round-robin", "fifo"]), default="round-robin",
                     help="After a segment: everybody else's turn, or still its own.  [default: round-robin]"),
        click.option("--begin", metavar="TIME", help="Not before: 22:00, tomorrow 6:00, +2h, 2030-01-31T22:00."),
        click.option("--priority", type=click.IntRange(-1_000_000, 1_000_000), default=0, metavar="N",
                     help="Higher ones first.  [default: 0]"),
    ):  # fmt: skip
        command = option(command)
    return command


class RequestedPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A place as it was asked for. `after`: (what was typed, kind)."""

    priority: int = 0
    begin_s: float = 0.0
    held: bool = False
    keep: bool = False
    after: tuple[tuple[str, DependencyKind], ...] = ()


def requested_position(values: Mapping[str, Any], now_s: float) -> RequestedPosition:
    """Raises BadCommand."""
    begin_s = 0.0
    if values["begin"] is not None:
        from backprop.cli.submit.times import read_begin

        begin_s = read_begin(values["begin"], now_s)
    after: list[tuple[str, DependencyKind]] = [
        (one.strip(), kind) for name, kind in AFTER for text in values[name] for one in str(text).split(",")
    ]
    if any(not text for text, _ in after):
        raise BadCommand("--after has an empty name; give ids, names or groups, with commas between them")
    return RequestedPosition(
        priority=values["priority"],
        begin_s=begin_s,
        held=values["hold"],
        keep=values["keep"],
        after=tuple(after),
    )


def group_of(name: str | None, parallel: int | None, at_once: int | None = None) -> GroupRules | None:
    """The group and its rules. `at_once`: what an array said. Raises BadCommand."""
    from backprop.cli.submit.submission import checked

    if parallel is not None and at_once is not None and parallel != at_once:
        raise BadCommand(f"--parallel {parallel} and --array …%{at_once} disagree; give one of them")
    if name is None:
        return None
    return GroupRules(name=checked("--group", name), max_parallel=at_once if parallel is None else parallel)


class Parents:
    """Finds what `--after` names."""

    def __init__(self, database: "Database | None") -> None:
        """`database` None: nothing was ever queued."""
        self.database = database
        self.earlier: dict[str, list[str]] = {}
        """Ids by name and by id of runs about to be queued together with the one that asks."""
        self.met: set[str] = set()
        """Ids of those found that have ended as is wanted of them."""
        self._known: dict[tuple[RequestedPosition, bool], tuple[tuple[str, DependencyKind], ...]] = {}

    def place_of(self, placing: RequestedPosition) -> QueuePosition:
        """Raises BadCommand for what can never be met, UnknownRun, AmbiguousRun."""
        return QueuePosition(
            priority=placing.priority, begin_s=placing.begin_s, held=placing.held, after=self._links(placing)
        )

    def add(self, run_id: str, name: str) -> None:
        """One that later ones may name."""
        for text in {run_id, name}:
            self.earlier.setdefault(text, []).append(run_id)

    def _links(self, placing: RequestedPosition) -> tuple[tuple[str, DependencyKind], ...]:
        key = (placing, bool(self.earlier))
        if not placing.after:
            return ()
        if key in self._known and not any(text in self.earlier for text, _ in placing.after):
            return self._known[key]
        from backprop.scheduler.store.dependencies import is_met

        links: dict[str, DependencyKind] = {}
        for text, kind in placing.after:
            for run_id, state in self._find(text):
                if links.setdefault(run_id, kind) != kind:
                    raise BadCommand(f"run {run_id} is named by two kinds of --after; choose one")
                self._refuse_hopeless(text, run_id, kind, state, placing.keep)
                if state is not None and is_met(kind, state):
                    self.met.add(run_id)
        self._known[key] = tuple(links.items())
        return self._known[key]

    def _find(self, text: str) -> "Sequence[tuple[str, State | None]]":
        from backprop.scheduler.store import dependencies
        from backprop.scheduler.store.reads import queries

        found = self.earlier.get(text)
        if found is not None:
            if len(found) > 1:
                raise BadCommand(
                    f"{len(found)} runs above are called {text}; give the one that is meant a --run-id"
                )
            return [(found[0], None)]
        if self.database is None:
            raise UnknownRun(f"no run or group is called {text}: nothing has been queued yet")
        exact = queries.run_by_id(self.database, text)
        if exact is not None:
            return [(exact.id, exact.state)]
        members = dependencies.members(self.database, text)
        if members:
            return members
        run = queries.find_run(self.database, text)
        return [(run.id, run.state)]

    def _refuse_hopeless(
        self, text: str, run_id: str, kind: DependencyKind, state: "State | None", keep: bool
    ) -> None:
        from backprop.scheduler.store.dependencies import WORDS, is_met

        if state is None or keep or is_met(kind, state) is not False:
            return
        who = run_id if text == run_id else f"{run_id} ({text})"
        raise BadCommand(
            f"run {who} has {state} already: waiting for it {WORDS[kind]} is in vain; {INSTEAD[kind]}"
        )


def refuse_too_many_links(places: Iterable[QueuePosition]) -> None:
    """Raises BadCommand."""
    count = sum(len(place.after) for place in places)
    if count > MOST_LINKS:
        raise BadCommand(
            f"that is {count:,} pairs of runs, at most {MOST_LINKS:,} are kept; let one run wait for the group and the"
            " others for that one"
        )


_FORM: Final = re.compile(r"(\d{1,2}(?:\.\d{1,4})?)%/(\d{1,6})", re.ASCII)
METRIC_LIMIT: Final = 128


def with_keeping(group: GroupRules | None, best: str | None, metric: str | None) -> GroupRules | None:
    """`group` with the rule. `metric`: a name, with `:max` after it where more is better. Raises BadCommand."""
    import msgspec

    if best is None and metric is None:
        return group
    if best is None:
        raise BadCommand(
            "--metric says what --keep-best goes by; give both, such as: --keep-best 50%/3 --metric loss"
        )
    if group is None:
        raise BadCommand(
            "--keep-best is a rule for a group; give --group NAME, or --grid, --array or --params"
        )
    found = _FORM.fullmatch(best)
    if found is None or not 0 < float(found[1]) < 100 or not int(found[2]):
        raise BadCommand(
            f"--keep-best {best} is not SHARE%/SEGMENTS; 50%/3 keeps the better half after every three segments"
        )
    name, _, direction = (metric or "loss").partition(":")
    if direction not in ("", "min", "max") or not 0 < len(name) <= METRIC_LIMIT or not name.isprintable():
        raise BadCommand(f"--metric {metric} is not NAME, NAME:min or NAME:max")
    return msgspec.structs.replace(
        group,
        keep_share=float(found[1]) / 100,
        keep_every=int(found[2]),
        keep_metric=name,
        keep_highest=direction == "max",
    )
