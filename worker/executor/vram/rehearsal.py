"""Finds out whether this driver can move VRAM: with a process of ours that has nothing to lose.

It holds 256 MiB, goes out and comes back, still holds what it held and can compute, and is ended then, as every run is
that ever came back. Never done while a run lives here: a driver that cannot do it may take the machine down.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.worker.executor.vram.canary import Canary, NoCanary
from backprop.worker.executor.vram.move_files import Direction, MoveAnswer, MoveOrder
from backprop.worker.executor.vram.moving import PROGRAM, Move, NoAnswer, Stuck, order_for

MIB: Final = 256
BACK_S: Final = 30.0
"""How long freed memory may take to be seen."""

FreeMib = Callable[[], int | None]
"""Reads the free VRAM of the GPU; None where it cannot be read now."""


class CanaryOutcome(msgspec.Struct, frozen=True):
    """`told`: what came of it, in words. `is_final`: False where it could not be tried now."""

    passed: bool
    told: str
    is_final: bool = True


class _Failed(Exception):
    """The driver has not done what it was to do. The text says what."""


def rehearse(
    gpu_uuid: str,
    free_mib: FreeMib,
    mib: int = MIB,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
) -> CanaryOutcome:
    """Move a canary of `mib` out and in, and end it. `environment`, `program`: of canary and mover. Raises OSError."""
    idle_mib = free_mib()
    try:
        canary = Canary(gpu_uuid, mib, environment, (*program, "--canary"))
    except NoCanary as error:
        return CanaryOutcome(False, f"no process could hold {mib} MiB there: {error}", is_final=False)
    folder = Path(tempfile.mkdtemp(prefix="backprop-vram-"))

    def move(wanted: Direction) -> MoveAnswer:
        order = order_for(1, wanted, canary.identity, gpu_uuid, mib)
        return _moved(Move(folder, order, environment, program), order)

    try:
        told = _through(canary, free_mib, move, mib)
        canary.kill()
        _wait_for(free_mib, (idle_mib or 0) - mib // 2, "its VRAM has not come back after its end")
    except Stuck as error:
        # Neither the mover nor what it works on is touched any more.
        canary.leave()
        return CanaryOutcome(False, f"{error}; the processes of the test are left alone")
    except (_Failed, NoAnswer, NoCanary) as error:
        canary.kill()
        verdict = CanaryOutcome(False, str(error))
    else:
        verdict = CanaryOutcome(True, told)
    shutil.rmtree(folder, ignore_errors=True)
    return verdict


def _through(canary: Canary, free_mib: FreeMib, move: Callable[[Direction], MoveAnswer], mib: int) -> str:
    """Move it out and in; say how long that took. Raises _Failed, Stuck, NoAnswer, NoCanary, OSError."""
    taken_mib, held = free_mib() or 0, canary.digest
    out = move("out")
    _wait_for(
        free_mib, taken_mib + mib * 3 // 4, "its VRAM is not free though the driver says that it is out"
    )
    back = move("in")
    if canary.ask() != held:
        raise _Failed("its memory came back with another content")
    if canary.ask("change") == held:
        raise _Failed("it can no longer write to its memory")
    return f"{mib} MiB went out in {out.seconds:.1f} s and came back in {back.seconds:.1f} s"


def _moved(move: Move, order: MoveOrder) -> MoveAnswer:
    answer = move.wait()
    if not (answer.is_out if order.wanted == "out" else answer.runs):
        raise _Failed(f"it did not move {order.wanted}: {answer.what or answer.reached}")
    return answer


def _wait_for(free_mib: FreeMib, least_mib: int, why: str) -> None:
    end_s = time.monotonic() + BACK_S
    while (free := free_mib()) is None or free < least_mib:
        if time.monotonic() > end_s:
            raise _Failed(why)
        time.sleep(0.1)
