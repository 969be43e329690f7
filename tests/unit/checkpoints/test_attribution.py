"""Who wrote a file: by the first evidence that leaves one run, and never a run that did not."""

import random

import pytest

from backprop.worker.checkpoints.seen.attribution import Attribution, Evidence, How, attribute

RUNS = ("a", "b", "c", "d")


def some(*runs: str) -> frozenset[str]:
    return frozenset(runs)


def truthful(chance: random.Random) -> tuple[str | None, Evidence]:
    """Return who wrote a file, None for somebody else, and evidence that does not lie; it may be silent."""
    lived = frozenset(run for run in RUNS if chance.random() < 0.7)
    writer = chance.choice(sorted(lived)) if lived and chance.random() < 0.9 else None
    true = some(writer) if writer is not None else some()
    others = lived - true

    def part(runs: frozenset[str]) -> frozenset[str]:
        return frozenset(run for run in sorted(runs) if chance.random() < 0.5)

    idle = part(others)
    return writer, Evidence(
        lived=lived,
        said=part(true),
        opened=part(true),
        elsewhere=part(others) if writer is not None else some(),
        idle=idle,
        busy=part(lived - idle) if writer is not None else some(),
        owners=part(frozenset(RUNS)),
    )


def test_truthful_evidence_never_leads_to_another_run() -> None:
    """Where somebody outside wrote, one run alone may still be taken: no count of bytes speaks against it."""
    chance = random.Random(20_261_127)
    named = 0
    for _ in range(20_000):
        writer, evidence = truthful(chance)
        found = attribute(evidence)
        if writer is not None:
            assert found.writer in (writer, None), evidence
            assert found.writer is not None or writer in found.suspects, evidence
        assert found.writer is None or found.writer in evidence.lived
        assert found.writer not in found.shared_with
        assert (found.writer is None) == (found.how is None)
        assert found.writer is None or not found.suspects
        named += found.writer is not None
    assert named > 5000, "the rule is not afraid of everything"


@pytest.mark.parametrize(
    ("evidence", "writer", "how", "suspects"),
    [
        (Evidence(some("a"), said=some("a")), "a", How.SAID, some()),
        (Evidence(some("a", "b"), opened=some("b"), busy=some("a")), "b", How.OPEN, some()),
        (Evidence(some("a", "b"), said=some("a"), opened=some("b")), None, None, some("a", "b")),
        (Evidence(some("a", "b"), elsewhere=some("b"), busy=some("a", "b")), "a", How.PLACE, some()),
        (Evidence(some("a", "b"), elsewhere=some("a", "b")), None, None, some("a", "b")),
        (Evidence(some("a", "b"), idle=some("b"), busy=some("a")), "a", How.BYTES, some()),
        (Evidence(some("a", "b"), idle=some("b")), "a", How.BYTES, some()),
        (Evidence(some("a", "b"), elsewhere=some("a"), idle=some("b")), None, None, some("a", "b")),
        (Evidence(some("a", "b"), busy=some("a", "b")), None, None, some("a", "b")),
        (Evidence(some("a")), "a", How.ALONE, some()),
        (Evidence(some("a"), idle=some("a")), None, None, some()),
        (Evidence(some("a"), idle=some("a"), named=True), "a", How.ALONE, some()),
        (Evidence(some("a", "b"), idle=some("a", "b"), named=True), None, None, some("a", "b")),
        (Evidence(some()), None, None, some()),
    ],
)
def test_the_first_evidence_that_leaves_one_run_decides(
    evidence: Evidence, writer: str | None, how: How | None, suspects: frozenset[str]
) -> None:
    found = attribute(evidence)
    assert (found.writer, found.how, found.suspects) == (writer, how, suspects)


def test_a_file_that_another_one_wrote_before_is_shared_until_that_is_final() -> None:
    found = attribute(Evidence(some("a"), busy=some("a"), owners=some("a", "b")))
    assert found == Attribution("a", How.BYTES, shared_with=some("b"))
