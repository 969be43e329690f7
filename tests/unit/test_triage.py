"""What ended a segment, told from its exit status, the kernel's counters and the end of its log."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.scheduler.faults.deciding import triage
from backprop.scheduler.faults.kinds import MAY_PASS, OF_THE_HOST, WOULD_FAIL_AGAIN, Fault
from backprop.scheduler.faults.remedies import REMEDIES
from backprop.scheduler.faults.triage import SegmentEnd
from benchmarks.triage.sample import read
from benchmarks.triage.score import score
from tests.support.harness import ROOT

CORPUS = ROOT / "tests" / "fixtures" / "failed_logs"
MOST_BYTES = 300_000
LONGEST_S = 2.0


@pytest.mark.parametrize(
    ("half", "mistaken", "misplaced"),
    [("rules", {"pip", "logging to a file"}, 0), ("held_out", {"np.save", "hip", "python -m"}, 3)],
)
def test_logs_of_programs_that_really_failed_are_told_apart(
    half: str, mistaken: set[str], misplaced: int
) -> None:
    """`mistaken`: the programs whose kind is known not to be told, see the benchmarks' page."""
    samples = read(CORPUS / f"{half}.jsonl")
    told = set(Fault) - {Fault.STARTED_OVER, Fault.HUNG}
    assert {sample.kind for sample in samples} == told, "those two no log tells"
    result = score(samples)
    assert {sample.program for sample, _ in result.mistakes} <= mistaken
    assert len(result.misplaced) <= misplaced, [one.program for one, _ in result.misplaced]


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) <= MOST_BYTES


def test_every_kind_has_its_remedy() -> None:
    assert set(REMEDIES) == set(Fault)
    assert not MAY_PASS & WOULD_FAIL_AGAIN
    assert OF_THE_HOST <= MAY_PASS


@pytest.mark.parametrize(
    ("kills", "kind"),
    [
        ((1, 1), Fault.OOM_KILLED),
        ((2, None), Fault.OOM_KILLED),
        ((None, 1), Fault.OOM_KILLED),
        ((0, 1), Fault.UNKNOWN),
        ((0, 0), Fault.UNKNOWN),
        ((None, None), Fault.UNKNOWN),
    ],
)
def test_a_kill_is_the_kernels_where_the_kernel_has_counted_it(
    kills: tuple[int | None, int | None], kind: Fault
) -> None:
    end = SegmentEnd(signal_name="SIGKILL", log=b"step 7\n", oom_kills=kills)
    assert triage(end).kind is kind
    by_shell = SegmentEnd(
        exit_code=137, log=b"step 7\nrun.sh: line 3: 77 Killed  python train.py\n", oom_kills=kills
    )
    assert triage(by_shell).kind is kind
    other = SegmentEnd(exit_code=1, log=TRACEBACK, oom_kills=kills)
    assert triage(other).kind is Fault.EXCEPTION, "what was killed was another's"


TRACEBACK = b"""Traceback (most recent call last):
  File "/home/ada/me/train.py", line 9, in <module>
    main()
  File "/home/ada/me/lib/steps.py", line 4, in main
    batch["label"]
  File "/opt/venv/lib/python3.12/site-packages/torch/x.py", line 77, in get
    return self.rows[name]
KeyError: 'label'
"""


def test_the_place_is_the_last_frame_of_the_users_own_code() -> None:
    place = triage(SegmentEnd(exit_code=1, cwd="/home/ada/me", log=TRACEBACK)).place
    assert place is not None
    assert (place.file, place.line, place.function) == ("lib/steps.py", 4, "main")
    elsewhere = triage(SegmentEnd(exit_code=1, cwd="/home/ada/other", log=TRACEBACK)).place
    assert elsewhere is not None
    assert elsewhere.file == "/home/ada/me/lib/steps.py"
    libraries = TRACEBACK.replace(b"/home/ada/me/", b"/opt/venv/lib/python3.12/site-packages/")
    assert triage(SegmentEnd(exit_code=1, cwd="/home/ada/me", log=libraries)).place is None


@pytest.mark.parametrize("prefix", [b"[rank0]: ", b"[default0]:", b"  | ", b"\x1b[31m", b"0: "])
def test_what_launchers_put_before_each_line_is_no_part_of_it(prefix: bytes) -> None:
    log = b"".join(prefix + line + b"\n" for line in TRACEBACK.splitlines())
    found = triage(SegmentEnd(exit_code=1, cwd="/home/ada/me", log=b"noise\n" + log + b"noise\n"))
    assert found.message == "KeyError: 'label'"
    assert found.place is not None and found.place.line == 4


def test_what_was_caught_long_before_the_end_is_not_the_end() -> None:
    log = TRACEBACK + b"".join(b"step %d loss 0.5\n" % number for number in range(300))
    found = triage(SegmentEnd(exit_code=1, log=log))
    assert (found.kind, found.message) == (Fault.UNKNOWN, "step 299 loss 0.5")


def test_what_the_outcome_tells_stands_above_the_log() -> None:
    nan = triage(SegmentEnd(exit_code=0, known=Fault.NAN, said="its loss is NaN at step 7", log=TRACEBACK))
    assert (nan.kind, nan.message, nan.place) == (Fault.NAN, "its loss is NaN at step 7", None)
    full = triage(SegmentEnd(exit_code=1, known=Fault.DISK_FULL, said="disk full: x", log=b"step 4\n"))
    assert full.kind is Fault.DISK_FULL


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "exited 1: FileNotFoundError: [Errno 2] No such file or directory: 'x'; retry 1 of 2",
            Fault.MISSING_FILE,
        ),
        ("could not be started: No such file or directory: /home/ada/run.py", Fault.MISSING_FILE),
        ("could not be started: Permission denied: /home/ada/run.py", Fault.PERMISSION),
        ("exited 3", Fault.UNKNOWN),
    ],
)
def test_without_a_log_the_reason_tells(said: str, kind: Fault) -> None:
    assert triage(SegmentEnd(exit_code=1, said=said)).kind is kind


PIECES = [
    TRACEBACK, b"Traceback (most recent call last):\n", b'  File "x.py", line 1, in f\n', b"ValueError: bad\n",
    b"\x1b[31m", b"\x1b]8;;x", b"[rank0]: ", b"  | ", "╭─ Traceback (most recent call last) ─\n".encode(), b"\r",
    "│ /a/b.py:3 in f │\n".encode(), "╰─\n".encode(), b"Fatal Python error: x\n", b"usage: x\n", b"\n",
    b"terminate called after throwing an instance of 'x'\n", b"  what():  y\n", b"+-+---- 1 ----\n", b"\x00\xff\xfe",
    b"The above exception was the direct cause of the following exception:\n", b"CUDA ", b"loss nan stop",
]  # fmt: skip


@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=60)), max_size=60),
    st.sampled_from([None, 0, 1, 2, 64, 127, 134, 137, 139, 255]),
    st.sampled_from([None, "SIGKILL", "SIGSEGV", "SIGABRT", "signal 77"]),
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_told_as_something(pieces: list[bytes], code: int | None, name: str | None) -> None:
    found = triage(SegmentEnd(exit_code=code, signal_name=name, cwd="/home/ada/me", log=b"".join(pieces)))
    assert found.remedy == REMEDIES[found.kind]
    assert found.message is None or len(found.message) <= 500


@pytest.mark.parametrize(
    "piece", [*PIECES, b"a", b"[rank0]: Traceback (most recent call last):\n[rank1]: x\n", b"a:", b"CUDA"]
)
def test_no_log_takes_long(piece: bytes) -> None:
    size = 128 * 1024
    for log in (
        piece * (size // len(piece)),
        TRACEBACK + piece * (size // len(piece)),
        b"[rank0]: " * 2000 + piece * 20000,
    ):
        began_s = time.process_time()
        triage(SegmentEnd(exit_code=1, cwd="/", log=log[-size:]))
        assert time.process_time() - began_s < LONGEST_S, piece


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (
            b"/usr/bin/python3: Error while finding module specification for 'mytrain.main' (ModuleNotFoundError: No"
            b" module named 'mytrain')\n",
            Fault.IMPORT,
        ),
        (
            b'Traceback (most recent call last):\n  File "/p/save.py", line 7, in keep\n    buffer.tofile(out)\n'
            b"OSError: 262144 requested and 98304 written\n",
            Fault.DISK_FULL,
        ),
        (
            b'Traceback (most recent call last):\n  File "/p/fit.py", line 9, in <module>\n    fit()\n'
            b"__main__.fit.<locals>.Diverged: step 40\n",
            Fault.EXCEPTION,
        ),
        (
            b'Traceback (most recent call last):\n  File "/p/fit.py", line 9, in <module>\n    fit()\n'
            b"OSError: 3 files requested and 2 written by hand\n",
            Fault.EXCEPTION,
        ),
    ],
)
def test_what_is_said_in_its_own_way_is_told_too(log: bytes, kind: Fault) -> None:
    found = triage(SegmentEnd(exit_code=1, cwd="/p", log=log))
    assert found.kind is kind
    assert (found.place is None) is (kind is Fault.IMPORT)
