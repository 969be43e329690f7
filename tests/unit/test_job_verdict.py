"""A segment on a cluster has one leader, whatever is lost, late or doubled, and is settled once the engine is truthful.

The worker's conclusions are the product's; the node and the engine around them are simulated, with one folder as a
dictionary. Time passes in steps of a second.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.worker.executor.base import Life
from backprop.worker.executor.cluster.engine import JobSeen, JobSnapshot, Phase
from backprop.worker.executor.cluster.segment_state import SegmentState, StartedFile
from backprop.worker.executor.cluster.verdict import JobAction, Memory, Times, judge
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.supervisor import claim

LEASE_S = 12.0
TIMES = Times(LEASE_S)
LONG_S = 60


@dataclass
class Node:
    """The node agent of a segment's job: what a real one does, by its rules. `leader`: it runs. `records`: its end is
    still to be written."""

    token: str
    leader: bool = False
    sees_share: bool = True
    unseen_s: float = 0.0
    records: bool = False
    beat: int = 0


@dataclass
class World:
    """One chain: its segments' folders, the engine's jobs, the nodes. `snapshot_delay_s`: how old a snapshot is."""

    now_s: float = 0.0
    started: dict[str, str] = field(default_factory=dict[str, str])
    exits: set[str] = field(default_factory=set[str])
    revoked: set[str] = field(default_factory=set[str])
    beats: dict[str, int] = field(default_factory=dict[str, int])
    jobs: dict[str, Phase] = field(default_factory=dict[str, Phase])
    known_from_s: dict[str, float] = field(default_factory=dict[str, float])
    in_flight: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    nodes: list[Node] = field(default_factory=list[Node])
    memory: Memory = field(default_factory=Memory)
    counts_from_s: float | None = None
    token: str = "t0"
    number: int = 0
    snapshot: JobSnapshot | None = None
    settled: bool = False

    def leaders(self) -> int:
        return sum(node.leader for node in self.nodes)

    def submit(self, lost: bool, late_s: float, doubled: bool) -> None:
        for _ in range(1 + doubled):
            if not lost:
                self.in_flight.append((self.now_s + late_s, self.token))
        self.counts_from_s = self.now_s + late_s

    def begin(self, token: str) -> None:
        """A job starts on a node, and its agent tries the claim."""
        if self.jobs.get(token) is Phase.WAITS:
            self.jobs[token] = Phase.LIVES
        if token not in self.started:
            self.started[token] = token
            self.nodes.append(Node(token, leader=True))

    def second(self) -> None:
        """Let a second pass for engine and nodes."""
        self.now_s += 1
        for due_s, token in list(self.in_flight):
            if due_s <= self.now_s:
                self.in_flight.remove((due_s, token))
                self.jobs.setdefault(token, Phase.WAITS)
        for node in self.nodes:
            self._agent(node)

    def _agent(self, node: Node) -> None:
        if not node.leader:
            if node.records and node.sees_share:
                node.records = False
                self.exits.add(node.token)
                self.jobs[node.token] = Phase.DONE
            return
        if node.sees_share:
            node.unseen_s, node.beat = 0.0, node.beat + 1
            self.beats[node.token] = node.beat
            if node.token in self.revoked:
                node.leader = False
                self.exits.add(node.token)
                self.jobs[node.token] = Phase.DONE
        else:
            node.unseen_s += 1
            if node.unseen_s >= LEASE_S / 2:
                node.leader, node.records = False, True

    def end(self, node: Node, record: bool) -> None:
        """The leader ends; its end reaches the share if the node sees it."""
        if node.leader:
            node.leader = False
            if record and node.sees_share:
                self.exits.add(node.token)
            self.jobs[node.token] = Phase.DONE

    def take_snapshot(self, empty: bool) -> None:
        jobs = {} if empty else {token: JobSeen("1", phase) for token, phase in self.jobs.items()}
        self.snapshot = JobSnapshot(self.now_s, jobs)

    def worker(self) -> None:
        """One look of the worker, and what follows from it."""
        token = self.token
        state = SegmentState(
            started=StartedFile(token=self.started[token]) if token in self.started else None,
            exit=ExitRecord() if token in self.exits else None,
            beat=self.beats.get(token),
            revoked=token in self.revoked,
            job=None,
        )
        verdict = judge(self.memory, state, self.snapshot, token, self.counts_from_s, TIMES, self.now_s)
        if verdict.action is JobAction.VOID:
            self.started.setdefault(token, claim.VOID)
        elif verdict.action is JobAction.REVOKE:
            self.revoked.add(token)
        if verdict.life in (Life.ENDED, Life.LOST):
            assert not any(node.leader for node in self.nodes if node.token == token), (
                "the next one may begin now"
            )
            self.number += 1
            self.token, self.memory, self.counts_from_s = f"t{self.number}", Memory(), None
            self.settled = True

    def restart_worker(self) -> None:
        self.memory = Memory()
        self.counts_from_s = self.now_s + 1


EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.booleans(), st.integers(0, 8), st.booleans()),
    st.tuples(st.just("begin"), st.integers(0, 4)),
    st.tuples(st.just("wait"), st.integers(1, 20)),
    st.tuples(st.just("snapshot"), st.booleans()),
    st.tuples(st.just("no snapshot")),
    st.tuples(st.just("share away")),
    st.tuples(st.just("share back")),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("engine kills")),
    st.tuples(st.just("look"), st.integers(1, 5)),
    st.tuples(st.just("worker dies")),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_never_two_leaders_and_never_stuck(events: list[tuple[object, ...]]) -> None:
    world = World()
    for event in events:
        _happen(world, event)
        assert world.leaders() <= 1
    # From now on the engine tells the truth, the share is there, and what runs ends.
    for node in world.nodes:
        node.sees_share = True
    world.settled = False
    before = world.number
    for _ in range(6 * LONG_S):
        world.second()
        world.take_snapshot(empty=False)
        if world.counts_from_s is None:
            world.submit(lost=False, late_s=1, doubled=False)
        for token, phase in list(world.jobs.items()):
            if phase is Phase.WAITS:
                world.begin(token)
            if world.started.get(token) != token:
                world.jobs[token] = Phase.DONE
        if world.now_s % 20 == 0:
            for node in world.nodes:
                world.end(node, record=True)
        world.worker()
        assert world.leaders() <= 1
        if world.number > before + 1:
            return
    raise AssertionError(f"stuck: {world}")


def _happen(world: World, event: tuple[object, ...]) -> None:
    match event:
        case ("submit", bool(lost), int(late_s), bool(doubled)):
            if world.counts_from_s is None:
                world.submit(lost, late_s, doubled)
        case ("begin", int(which)):
            if world.jobs:
                world.begin(sorted(world.jobs)[which % len(world.jobs)])
        case ("wait", int(seconds)):
            for _ in range(seconds):
                world.second()
        case ("snapshot", bool(empty)):
            world.take_snapshot(empty)
        case ("no snapshot",):
            world.snapshot = None
        case ("share away",):
            for node in world.nodes:
                node.sees_share = False
        case ("share back",):
            for node in world.nodes:
                node.sees_share = True
        case ("end", bool(record)):
            for node in world.nodes:
                world.end(node, record)
        case ("engine kills",):
            for node in world.nodes:
                node.leader = node.records = False
            world.jobs = dict.fromkeys(world.jobs, Phase.NODE_LOST)
        case ("look", int(times)):
            for _ in range(times):
                world.second()
                world.worker()
        case ("worker dies",):
            if world.counts_from_s is not None:
                world.restart_worker()
        case _:
            raise AssertionError(event)
