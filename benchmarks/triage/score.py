"""Tells how well kinds are told apart: F1 of each kind, their mean, the mistakes, and the lines that were found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from backprop.scheduler.faults.deciding import triage
from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.faults.triage import SegmentEnd, Triage
from benchmarks.triage.sample import Sample


@dataclass(frozen=True)
class Score:
    """`f1`: of each kind. `mistakes`: samples whose kind was not told. `misplaced`: those whose line of the user's own
    code was not found, out of `placed`."""

    f1: dict[str, float]
    mistakes: list[tuple[Sample, Triage]]
    misplaced: list[tuple[Sample, Triage]]
    placed: int

    @property
    def macro_f1(self) -> float:
        return sum(self.f1.values()) / len(self.f1)


def told(sample: Sample) -> Triage:
    """Return what is told of a sample, from what a worker would know of its end."""
    end = SegmentEnd(
        exit_code=sample.exit_code,
        signal_name=sample.signal,
        oom_kills=sample.oom_kills,
        cwd=sample.cwd,
        log=sample.log.encode(),
    )
    return triage(end)


def score(samples: Sequence[Sample]) -> Score:
    """Compare what is told of samples with what their authors say."""
    answers = [(sample, told(sample)) for sample in samples]
    right = Counter(sample.kind for sample, answer in answers if answer.kind == sample.kind)
    are = Counter(sample.kind for sample in samples)
    said = Counter(str(answer.kind) for _, answer in answers)
    kinds = [str(kind) for kind in Fault if are[kind] or said[kind]]
    f1 = {kind: 2 * right[kind] / (are[kind] + said[kind]) for kind in kinds}
    placed = [(sample, answer) for sample, answer in answers if sample.own is not None]
    return Score(
        f1,
        [(sample, answer) for sample, answer in answers if answer.kind != sample.kind],
        [(sample, answer) for sample, answer in placed if not is_at(sample, answer)],
        len(placed),
    )


def is_at(sample: Sample, answer: Triage) -> bool:
    """Return whether the line of the user's own code is the right one. Of a module that cannot be compiled that is
    its own line, or the one that imports it."""
    place = answer.place
    if place is None:
        return False
    not_compiled = sample.kind == "syntax error" and place.file.startswith("broken")
    return not_compiled or (place.file, place.line, place.function) == sample.own


def show(name: str, samples: Sequence[Sample]) -> None:
    """Print the figures of one half."""
    result = score(samples)
    print(f"{name}: {len(samples)} logs, macro-F1 {result.macro_f1:.3f}, {len(result.mistakes)} mistakes")
    for kind, f1 in result.f1.items():
        print(f"  {kind}: {f1:.3f} of {sum(sample.kind == kind for sample in samples)}")
    for sample, answer in result.mistakes:
        print(
            f"  {sample.kind}: {sample.program}, {sample.wrapping}: told as {answer.kind}: {answer.message}"
        )
    print(f"  line of the user's own code: {result.placed - len(result.misplaced)} of {result.placed}")
    for sample, answer in result.misplaced:
        place = answer.place
        where = f"{place.file}:{place.line} {place.function}" if place is not None else "none"
        print(f"  {sample.own}: {sample.program}, {sample.wrapping}: told as {where}")
