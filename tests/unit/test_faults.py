"""What kind of trouble a segment's end was, and what follows from the kind."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.faults.last_line import fault_of, port_in
from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome.failures import HOST_FAULT_CAP
from backprop.scheduler.outcome.move import with_advice
from backprop.scheduler.outcome.next_move import next_move
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.spec import RunSpec
from backprop.worker.segments.ends.port_in_use import port_in_use
from tests.support.harness import Bench

SPEC = RunSpec(argv=("train",), program="/bin/true", cwd="/", retries=2)
FRESH = Chain(segments=1, total_s=1, stalled=0, retries_used=0, lost=0, progressed=False, resumable=False)


@pytest.mark.parametrize(
    ("exit_code", "line", "fault"),
    [
        (1, "ModuleNotFoundError: No module named 'torhc'", Fault.IMPORT),
        (1, "ImportError: libcudnn.so.9: cannot open shared object file", Fault.IMPORT),
        (127, "train.sh: line 1: pythn: command not found", Fault.IMPORT),
        (2, "train.py: error: unrecognized arguments: --lrr 3", Fault.USAGE),
        (2, "Error: No such option: --lrr", Fault.USAGE),
        (64, "usage: train [-x]", Fault.USAGE),
        (1, "train.py: error: bad", None),
        (2, "ValueError: 2 is not 3", None),
        (1, "OSError: [Errno 28] No space left on device: 'out/ckpt.pt'", Fault.DISK_FULL),
        (1, "OSError: [Errno 98] Address already in use", Fault.PORT_IN_USE),
        (1, "RuntimeError: DefaultCPUAllocator: can't allocate memory", Fault.HOST_MEMORY),
        (1, "MemoryError", Fault.HOST_MEMORY),
        (1, "RuntimeError: shapes do not match", None),
        (1, None, None),
        (None, "", None),
    ],
)  # fmt: skip
def test_the_kind_is_told_from_exit_code_and_last_line(
    exit_code: int | None, line: str | None, fault: Fault | None
) -> None:
    assert fault_of(exit_code, line) is fault


@pytest.mark.parametrize(
    ("line", "exit_code", "said"),
    [
        ("ModuleNotFoundError: No module named 'x'", 1, "import error: No module named 'x' (exit code 1)"),
        ("ImportError: x", 1, "import error: x (exit code 1)"),
        (
            "train.py: error: unrecognized arguments: -x",
            2,
            "usage error: train.py: error: unrecognized arguments: -x (exit",
        ),
    ],
)
def test_what_would_fail_again_is_not_retried_from_the_beginning(
    line: str, exit_code: int, said: str
) -> None:
    ending = SegmentResult(exit_code=exit_code, last_line=line)
    verdict = next_move(SPEC, ending, FRESH)
    assert (verdict.event, verdict.fault) == (Event.FAILED, fault_of(exit_code, line))
    assert "not retried" in verdict.reason
    assert verdict.reason.startswith(said)
    later = Chain(segments=3, total_s=99, stalled=0, retries_used=0, lost=0, progressed=True, resumable=True)
    assert next_move(SPEC, ending, later).event is Event.REQUEUED, "it had started before"


def test_a_full_disk_is_named_and_tried_again() -> None:
    verdict = next_move(
        SPEC, SegmentResult(exit_code=1, last_line="OSError: [Errno 28] No space left on device"), FRESH
    )
    assert (verdict.event, verdict.fault) == (Event.REQUEUED, Fault.DISK_FULL)
    assert verdict.reason.startswith(
        "disk full: [Errno 28] No space left on device (exit code 1); again from the beginning once there is room"
    )
    assert verdict.delay_s > 0
    assert verdict.retries_used == 0


FULL = SegmentResult(exit_code=1, disk_full=True)
TAKEN = SegmentResult(exit_code=1, last_line="x", port_in_use="OSError: [Errno 98] Address already in use")


@pytest.mark.parametrize(
    ("ending", "head", "advice"),
    [(FULL, "disk full: there was no room", "make room"), (TAKEN, "port in use: [Errno 98]", "another one")],
)
def test_the_hosts_trouble_uses_no_retry_and_ends_a_run_only_when_it_comes_again_and_again(
    ending: SegmentResult, head: str, advice: str
) -> None:
    spec, chain, waited_s = msgspec.structs.replace(SPEC, retries=0), FRESH, 0.0
    for _ in range(HOST_FAULT_CAP):
        move = next_move(spec, ending, chain)
        assert move.event is Event.REQUEUED
        assert move.reason.startswith(head)
        waited_s += move.delay_s
        chain = replace(chain, host_faults=move.host_faults)
    assert waited_s > 60
    lost = next_move(spec, SegmentResult(lost=True), chain)
    assert (lost.event, lost.host_faults) == (Event.REQUEUED, HOST_FAULT_CAP), "another end wipes nothing out"
    last = with_advice(next_move(spec, ending, chain), "4123-1")
    assert (last.event, last.fault) == (Event.FAILED, move.fault)
    assert last.reason.startswith(head)
    assert last.reason.endswith("then backprop resume 4123-1")
    assert advice in last.reason
    saved = next_move(spec, ending, replace(chain, progressed=True, resumable=True))
    assert (saved.event, saved.host_faults) == (Event.REQUEUED, 1), "it had saved something new"


def test_a_port_that_another_run_may_hold_is_tried_for_as_long_as_there_is_one() -> None:
    beside = replace(FRESH, host_faults=HOST_FAULT_CAP * 3, others_live=True)
    move = next_move(SPEC, TAKEN, beside)
    assert (move.event, move.delay_s) == (Event.REQUEUED, 600)


TORCH = "The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use)."


@pytest.mark.parametrize(
    ("line", "port"),
    [
        (f"[W socket.cpp:464] [c10d] {TORCH}", 29500),
        (
            "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address."
            " port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
            29500,
        ),
        (
            f"RuntimeError: The server socket has failed to listen on any local network address. {TORCH}",
            29500,
        ),
        (
            "ConnectionError: Tried to launch distributed communication on port `29500`, but another process is"
            " utilizing it.",
            29500,
        ),
        (
            "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
            8000,
        ),
        ("OSError: [Errno 98] Address already in use", None),
        ("RuntimeError: [../gloo/transport/tcp/pair.cc:144] bind: Address already in use", None),
        ("Port 5000 is in use by another program.", 5000),
        ("TensorBoard could not bind to port 6006, it was already in use", 6006),
        (
            "E0000 00:00:17 server_chttp2.cc:40] Unable to bind, errno:98, os_error:Address already in use",
            None,
        ),
    ],
)
def test_a_taken_port_is_told_from_what_programs_say(line: str, port: int | None, tmp_path: Path) -> None:
    assert fault_of(1, line) is Fault.PORT_IN_USE
    assert port_in(line) == port
    log = tmp_path / "log"
    log.write_text(
        f"Traceback (most recent call last):\n  File\n{line}\n" if "Error: " in line else f"{line}\n"
    )
    assert port_in_use(log) == line
    log.write_text(f"{line}\nTraceback (most recent call last):\n  File\nValueError: bad\n")
    assert port_in_use(log) is None, "it went on after that"


def test_asked_to_end_for_nan_is_failed_and_for_its_rank_stopped() -> None:
    nan = next_move(
        SPEC, SegmentResult(asked=Intent.NAN, why_asked="its loss is NaN at step 7", exit_code=0), FRESH
    )
    assert (nan.event, nan.fault) == (Event.FAILED, Fault.NAN)
    assert "NaN at step 7" in nan.reason
    ranked = next_move(
        SPEC, SegmentResult(asked=Intent.OUTRANKED, why_asked="place 7 of 8", exit_code=0), FRESH
    )
    assert (ranked.event, ranked.fault) == (Event.STOPPED, None)
    assert "place 7 of 8" in ranked.reason


NAN = """
    import json, time
    for step in range(1, 400):
        print(json.dumps({"step": step, "loss": float("nan") if step > 20 else 1.0}), flush=True)
        time.sleep(0.02)
"""


def test_a_loss_that_is_nan_is_named_and_ends_the_run_where_that_is_asked(bench: Bench) -> None:
    bench.script("nan.py", NAN)
    named = bench.queue("nan.py", "-m", "0.04", "--no-auto-resume")
    ended = bench.queue("nan.py", "-m", "5", "--stop-on-nan", "--grace-seconds", "5")
    bench.worker("--drain")
    seen = bench.wait_for(ended, "failed", "completed")
    assert (seen["state"], seen["fault"]) == ("failed", "NaN loss")
    assert "its loss is NaN" in seen["reason"]
    assert bench.wait_for(named, "timeboxed")["fault"] == "NaN loss"
    shown = bench.backprop("list").stdout
    assert [line.split()[5] for line in shown.splitlines()] == ["LOSS", "nan", "nan"]


def test_list_shows_the_kind_and_the_last_line(bench: Bench) -> None:
    bench.script("imports.py", "import nowhere_to_be_found\n")
    run = bench.queue("imports.py", "--retries", "3")
    bench.worker("--drain")
    seen = bench.wait_for(run, "failed")
    assert seen["fault"] == "import error"
    assert seen["segment_count"] == 1
    told = bench.backprop("list").stdout
    assert "import error" in told
    assert "No module named 'nowhere_to_be_found'" in told
