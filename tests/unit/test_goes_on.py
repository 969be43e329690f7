"""How a run goes on, in one line: from the specification alone."""

import pytest

from backprop.cli.submit.goes_on import goes_on_by, kind_of
from backprop.cli.submit.recipe_view import goes_on_json, lines_of_many
from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.executor.vram import trials

ELSE = ", else by suspending it in place"
INSTEAD = "suspending it in place; after a reboot: "


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NVIDIA", "AMD"):
        monkeypatch.setattr(trials, name, "/nowhere")


KNOWN = {
    "option": (
        Plan(recipe="pytorch", resumes="append", resume_words=("--resume", "{checkpoint}")),
        "its --resume (PyTorch)",
    ),
    "joined option": (
        Plan(recipe="keras", resumes="append", resume_words=("--from={checkpoint}",)),
        "its --from (Keras BackupAndRestore)",
    ),
    "words": (
        Plan(recipe="ultralytics", resumes="append", resume_words=("model={checkpoint}", "resume=True")),
        "its model=CHECKPOINT resume=True (Ultralytics YOLO)",
    ),
    "itself": (
        Plan(recipe="pytorch", resumes="rerun", globs=("/p/out/ckpt.pt",)),
        "itself, from out/ckpt.pt (PyTorch)",
    ),
    "events": (
        Plan(speaks="events"),
        "the checkpoints that it announces, given to it in BACKPROP_RESUME_FROM",
    ),
    "integration": (
        Plan(
            recipe="huggingface",
            resumes="none",
            integration="transformers",
            why="it has x; it passes nothing",
        ),
        "Hugging Face Trainer, TRL (integration attached at launch)",
    ),
    "variable": (Plan(speaks="variable"), "itself, from the path in BACKPROP_RESUME_FROM"),
}


def spec(plan: Plan | None = None, **more: object) -> RunSpec:
    return RunSpec(
        **{
            "argv": ("/bin/python", "train.py"),
            "program": "/bin/python",
            "cwd": "/p",
            "script": "/p/train.py",
        }
        | {"plan": plan}
        | more  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("case", KNOWN)
def test_the_way_is_named(case: str) -> None:
    plan, text = KNOWN[case]
    assert goes_on_by(spec(plan)).text == f"{text}{ELSE}"
    off = goes_on_by(spec(plan, auto_resume=False)).text
    assert off == f"{text}, once it is resumed: auto-resume is off"


def test_that_vram_stays_is_said_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, way = KNOWN["option"]
    beside = "suspending it in place, where others fit beside its VRAM (it failed its test)"
    assert goes_on_by(spec(plan), "it failed its test").text == f"{way}, else by {beside}"
    unknown = goes_on_by(spec(), "it failed its test").text
    assert unknown.startswith(f"{beside}; after a reboot: nothing known;")
    for changes in ({"gpus": 0}, {"gpu_probe": "none"}, {"suspend": "never"}, {"at_timebox": "end"}):
        run = spec(plan, **changes)
        assert goes_on_by(run, "it failed its test") == goes_on_by(run), changes
    monkeypatch.setattr(trials, "words_of_start", lambda _: "it failed its test")
    assert lines_of_many([spec(plan), spec(plan, gpus=0)])[0].endswith(f"{way}, else by {beside}")
    assert goes_on_json(spec(plan)) == {"way": "option", "text": f"{way}, else by {beside}"}


def test_what_the_user_says_comes_first() -> None:
    plan, _ = KNOWN["option"]
    said = goes_on_by(spec(plan, resume_arg="--load {checkpoint}"))
    assert (said.way, said.text) == ("resume-arg", f"--load CHECKPOINT, as --resume-arg says{ELSE}")
    none = goes_on_by(spec(Plan(speaks="option"), resume_arg="none"))
    assert (none.way, none.text.partition(",")[0]) == ("variable", "itself")
    assert goes_on_by(spec(Plan(speaks="option"))).text == f"its --resume-from{ELSE}"


def test_that_none_is_known_is_said_with_what_to_do() -> None:
    for plan in (None, Plan()):
        unknown = goes_on_by(spec(plan))
        told = "nothing known; I can't tell how train.py saves or resumes. Try: backprop drill train.py"
        assert (unknown.way, unknown.text) == ("unknown", f"{INSTEAD}{told}")
    argv = ("/bin/python", "a b.py", "--lr", "1")
    assert goes_on_by(spec(argv=argv)).text.endswith("Try: backprop drill 'a b.py' -- --lr 1")
    argv = ("bash", "job.sh", *"x" * 99)
    assert goes_on_by(spec(argv=argv)).text.endswith("Try: backprop drill -- …")
    for words, name in ((("bash", "job.sh"), "job.sh"), (("/bin/python", "-m", "pkg.train"), "pkg.train")):
        told = goes_on_by(spec(argv=words, script=None)).text
        assert f"how {name} saves" in told
    found = goes_on_by(spec(Plan(globs=("/p/*.pt",))))
    assert (found.way, "how train.py loads a checkpoint" in found.text) == ("unknown", True)
    barred = goes_on_by(
        spec(Plan(recipe="pytorch", resumes="none", why="it has x; its text passes nothing; say y"))
    )
    assert (barred.way, barred.text) == (
        "nothing",
        f"{INSTEAD}nothing (PyTorch); its text passes nothing; say y",
    )


def test_runs_of_one_kind_are_told_once() -> None:
    torch, plain = KNOWN["option"][0], Plan()
    sweep = [spec(torch, argv=("/bin/python", "train.py", "--lr", str(lr))) for lr in range(30)]
    assert len({kind_of(each) for each in sweep}) == 1
    assert lines_of_many(sweep)[0] == f"goes on by: its --resume (PyTorch){ELSE}"
    goes_on = [line for line in lines_of_many([*sweep, spec(plain)]) if "goes on by" in line]
    assert goes_on[0] == f"30 runs of train.py: goes on by: its --resume (PyTorch){ELSE}"
    assert goes_on[1].startswith(f"1 run of train.py: goes on by: {INSTEAD}nothing known;")
    many = lines_of_many([spec(plain, script=f"/p/{number}.py") for number in range(9)])
    assert many[-1] == "… and 3 more kinds of run; see: backprop show RUN"


@pytest.mark.parametrize(
    "changes",
    [
        {"suspend": "never"},
        {"at_timebox": "end"},
        {"order": "fifo"},
        {"plan": Plan(fragile="it trains by torch.distributed")},
        {"plan": Plan(reads_deadline=True)},
    ],
)
def test_what_is_not_suspended_is_not_said_to_be(changes: dict[str, object]) -> None:
    assert goes_on_by(spec(**changes)).text.startswith("nothing known;")  # type: ignore[arg-type]
    always = goes_on_by(spec(Plan(fragile="it trains by torch.distributed"), suspend="always"))
    assert always.text.startswith(INSTEAD)


def test_an_integration_that_is_switched_off_is_no_way() -> None:
    plan, _ = KNOWN["integration"]
    assert goes_on_by(spec(plan)).way == "integration"
    off = spec(plan, integrations=False)
    assert (goes_on_by(off).way, goes_on_by(off).text) == (
        "nothing",
        f"{INSTEAD}nothing (Hugging Face Trainer, TRL); it passes nothing",
    )
    assert (spec(plan).attaches, off.attaches, spec(plan).cannot_resume, off.cannot_resume) == (
        True,
        False,
        False,
        True,
    )
    for other in (Plan(speaks="events"), Plan(resumes="append"), Plan(resumes="none")):
        assert not spec(other).attaches
    assert not spec(plan, resume_arg="--load {checkpoint}").attaches
    assert spec(Plan()).attaches, "what it uses may be in a module that nobody has read"
