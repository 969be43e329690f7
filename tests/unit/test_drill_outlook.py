"""What a drill says of the night: at a timebox, at a resume, after a reboot."""

import pytest
from msgspec.structs import replace

from backprop.cli.drill.conditional_saves import named_best, saves_at_best
from backprop.cli.drill.costs import Costs
from backprop.cli.drill.outlook import Outlook, outlook
from backprop.cli.drill.verdict import DrillSegment, Proof, judge
from backprop.scheduler.governor.box_end import BoxRule
from backprop.worker.progress.steps import StepTrace

FIRST = DrillSegment(
    outcome="timeboxed", reason="", saved=2, saved_unasked=2, steps={"reported": StepTrace(1, 90, 90)}
)
SECOND = replace(FIRST, used="/o/c.pt", used_step=80, steps={"reported": StepTrace(81, 170, 170)})
QUICK = Costs(ready_s=1, save_s=1, saves_when_asked=False, gap_s=20)


def told_of(
    parts: tuple[DrillSegment, ...], costs: Costs = QUICK, rule: BoxRule = BoxRule.AUTO, at_best: str = ""
) -> tuple[Proof, Outlook]:
    verdict = judge(parts, "the reason", (), 20, rule, at_best)
    told = outlook(verdict, parts, costs, rule)
    assert told is not None
    return verdict.proof, told


def test_one_that_saves_by_the_clock_is_ended_after_a_save() -> None:
    proof, told = told_of((FIRST, SECOND))
    assert (proof, told.at_timebox, told.resumed_from) == (Proof.CHAINABLE, "ends after a save", "/o/c.pt")
    assert "/o/c.pt" in told.resume
    assert told.reboot == "it costs up to 20.0 s of work, and a restart of 1.0 s"


def test_one_that_saves_when_asked_has_its_whole_box() -> None:
    proof, told = told_of((FIRST, SECOND), replace(QUICK, saves_when_asked=True))
    assert (proof, told.at_timebox) == (Proof.CHAINABLE, "ends")


def test_a_dear_restart_is_named() -> None:
    _, told = told_of((FIRST, SECOND), replace(QUICK, ready_s=60))
    assert "a restart takes 60 s" in told.timebox
    assert "else it goes on" in told.timebox


def test_one_that_saves_nothing_is_simply_not_ended() -> None:
    proof, told = told_of((replace(FIRST, saved=0, saved_unasked=0),))
    assert (proof, told.at_timebox) == (Proof.RENEWED, "goes on")
    assert "all its work" in told.reboot
    proof, told = told_of((replace(FIRST, saved=0, saved_unasked=0),), rule=BoxRule.END)
    assert (proof, told.at_timebox) == (Proof.NOT_CHAINABLE, "ends")
    assert "whatever is lost" in told.timebox


def test_one_that_saves_on_the_signal_alone_is_told_how_to_be_ended() -> None:
    parts = (replace(FIRST, saved_unasked=0), replace(SECOND, saved_unasked=0))
    proof, told = told_of(parts, replace(QUICK, saves_when_asked=True, gap_s=None))
    assert (proof, told.at_timebox) == (Proof.CHAINABLE, "goes on")
    assert "--at-timebox end" in told.timebox
    assert "nothing unasked" in told.reboot
    asks = (replace(parts[0], asks_whether_to_stop=True), parts[1])
    assert told_of(asks, replace(QUICK, saves_when_asked=True))[1].at_timebox == "ends"


def test_one_that_goes_back_to_its_best_is_not_chainable() -> None:
    proof, told = told_of((FIRST, SECOND), at_best="if loss < best: torch.save(…)")
    assert proof is Proof.BEST_ONLY
    assert "best epoch" in told.resume
    assert "since its best epoch" in told.reboot


def test_one_that_starts_over_ends_for_good() -> None:
    over = replace(SECOND, outcome="started over", reason="why")
    proof, told = told_of((FIRST, over))
    assert (proof, told.at_timebox, told.resumed_from) == (Proof.NOT_CHAINABLE, "ends for good", None)


@pytest.mark.parametrize(
    ("text", "at_best"),
    [
        ("if loss < best:\n    torch.save(model, 'm.pt')", True),
        ("if is_best:\n    best = loss\n    torch.save(model, 'm.pt')", True),
        ("def keep():\n    torch.save(m, p)\nif acc > best_acc:\n    keep()", True),
        ("cb = ModelCheckpoint(dirpath='c', monitor='val_loss')", True),
        ("cb = keras.callbacks.ModelCheckpoint('c.keras', save_best_only=True)", True),
        ("if loss < best:\n    torch.save(m, 'best.pt')\ntorch.save(m, 'last.pt')", False),
        ("def keep():\n    torch.save(m, p)\nif acc > best_acc:\n    keep()\nkeep()", False),
        ("cb = ModelCheckpoint(monitor='val_loss', save_last=True)", False),
        ("cb = ModelCheckpoint(monitor='val_loss', save_top_k=-1)", False),
        ("cb = ModelCheckpoint(dirpath='c', every_n_epochs=1)", False),
        ("if loss < best or epoch % 5 == 0:\n    torch.save(m, 'm.pt')", False),
        ("is_best = acc > best\nsave_checkpoint(state, is_best)", False),
        ("print(1)", False),
        ("if step % 50 == 0:\n    torch.save(m, 'm.pt')", False),
    ],
)
def test_saves_that_follow_a_metric_are_told_from_those_that_follow_the_clock(
    text: str, at_best: bool
) -> None:
    assert bool(saves_at_best([text.encode()])) is at_best


def test_names_tell_too() -> None:
    assert named_best(["/o/model_best.pth", "/o/best-2.pth"])
    assert not named_best(["/o/model_best.pth", "/o/last.pth"])
    assert not named_best(["/best/last.pth"])
    assert not named_best([])
