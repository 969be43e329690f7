"""Finds the runs that --after names, and refuses what they can never fulfil."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from backprop.cli.submit.queue_options import RequestedPosition
from backprop.scheduler.errors import BadCommand, UnknownRun
from backprop.scheduler.spec import DependencyKind, QueuePosition

if TYPE_CHECKING:
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.connection import Database

MOST_LINKS: Final = 200_000
INSTEAD: Final[dict[DependencyKind, str]] = {
    "success": "resume it first, or use --after-any",
    "fail": "there is nothing to wait for",
    "any": "",
}


class Parents:
    """Turns requested positions into positions in the queue, with the ids of the runs to wait for."""

    def __init__(self, database: "Database | None") -> None:
        """`database` None: nothing was ever queued."""
        self.database = database
        self.earlier: dict[str, list[str]] = {}
        """Ids, by name and by id, of the runs queued by the same command before the one that asks."""
        self.met: set[str] = set()
        """Ids of parents that have already ended as required."""
        self._known: dict[tuple[RequestedPosition, bool], tuple[tuple[str, DependencyKind], ...]] = {}

    def position_of(self, request: RequestedPosition) -> QueuePosition:
        """Return the position. Raises BadCommand for a dependency that can never be met, UnknownRun, AmbiguousRun."""
        return QueuePosition(
            priority=request.priority, begin_s=request.begin_s, held=request.held, after=self._links(request)
        )

    def add(self, run_id: str, name: str) -> None:
        """Let later runs of the same command name this one."""
        for text in {run_id, name}:
            self.earlier.setdefault(text, []).append(run_id)

    def _links(self, request: RequestedPosition) -> tuple[tuple[str, DependencyKind], ...]:
        key = (request, bool(self.earlier))
        if not request.after:
            return ()
        if key in self._known and not any(text in self.earlier for text, _ in request.after):
            return self._known[key]
        from backprop.scheduler.store.dependencies import is_met

        links: dict[str, DependencyKind] = {}
        for text, kind in request.after:
            for run_id, state, may_be_done in self._find(text):
                if links.setdefault(run_id, kind) != kind:
                    raise BadCommand(f"run {run_id} is named by two kinds of --after; choose one")
                met = None if state is None else is_met(kind, state, may_be_done)
                if met is False and not request.keep:
                    raise _in_vain(text, run_id, kind, state)
                if met:
                    self.met.add(run_id)
        self._known[key] = tuple(links.items())
        return self._known[key]

    def _find(self, text: str) -> "Sequence[tuple[str, State | None, bool]]":
        """Return each run of that name, with its state (None: of this command) and whether it may be done."""
        from backprop.scheduler.store import dependencies
        from backprop.scheduler.store.reads import queries

        earlier = self.earlier.get(text)
        if earlier is not None:
            if len(earlier) > 1:
                raise BadCommand(
                    f"{len(earlier)} runs above are called {text}; give the one that you mean a --run-id"
                )
            return [(earlier[0], None, False)]
        if self.database is None:
            raise UnknownRun(f"no run or group is called {text}: nothing has been queued yet")
        run = queries.run_by_id(self.database, text)
        if run is None and (members := dependencies.members(self.database, text)):
            return members
        run = run or queries.find_run(self.database, text)
        return [(run.id, run.state, dependencies.may_be_done(run.state, run.exit_code))]


def _in_vain(text: str, run_id: str, kind: DependencyKind, state: "State | None") -> BadCommand:
    from backprop.scheduler.store.dependencies import WORDS

    parent = run_id if text == run_id else f"{run_id} ({text})"
    return BadCommand(
        f"run {parent} has {state} already: waiting for it {WORDS[kind]} is in vain; {INSTEAD[kind]}"
    )


def refuse_too_many_links(positions: Iterable[QueuePosition]) -> None:
    """Raise BadCommand for more dependencies than one command may queue."""
    count = sum(len(position.after) for position in positions)
    if count > MOST_LINKS:
        raise BadCommand(
            f"that is {count:,} pairs of runs, and at most {MOST_LINKS:,} are kept; let one run wait for the group, and"
            " the others for that run"
        )
