"""Checks whether a suspended run's VRAM can be moved to RAM here, and has a driver try it."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from backprop.cli.doctor.finding import Finding, note, ok
from backprop.scheduler.errors import IllegalMove
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from backprop.scheduler.governor.snapshot import Gpu
    from backprop.worker.probes.reading import Reading

NAME = "suspension"
NVML = "nvml"


def check_vram(home: Home, reading: "Reading") -> Finding:
    """Say of each GPU whether a suspended run gives its VRAM back. Raises OSError."""
    from backprop.worker.executor.vram import trials

    if reading.source != NVML or not reading.gpus:
        return ok(NAME, "a suspended run keeps its VRAM: it is moved on NVIDIA GPUs alone")
    whys = {gpu: trials.why_not(home, gpu.uuid, reading.driver) for gpu in reading.gpus}
    kept = [f"GPU {gpu.index}: {why.partition(': run ')[0]}" for gpu, why in whys.items() if why is not None]
    if not kept:
        return ok(NAME, f"a suspended run's VRAM is moved to RAM (driver {reading.driver})")
    untried = any(trials.why_never(home, gpu.uuid, reading.driver) is None for gpu in reading.gpus)
    return note(
        NAME, f"a suspended run keeps its VRAM; {'; '.join(kept)}", trials.ADVICE if untried else None
    )


def try_moving(home: Home, reading: "Reading", kind: str, say: Callable[[str], None]) -> None:
    """Have each GPU's driver move the VRAM of a process of ours, and remember what came of it. `say`: is told of each
    GPU. Raises IllegalMove, HomeRefused, DatabaseRefused, OSError."""
    from backprop.worker.executor import locks
    from backprop.worker.executor.vram import trials
    from backprop.worker.executor.vram.rehearsal import rehearse
    from backprop.worker.probes.client import read_once

    if reading.source != NVML or not reading.gpus:
        raise IllegalMove(f"nothing to test: {reading.problem or 'no NVIDIA GPU is found here'}")
    layout.ensure(home)
    with locks.Admission(home.locks) as acquired:
        if not acquired:
            raise IllegalMove("not tested: a worker is starting runs just now; try again")
        _refuse_live(home)
        for gpu in reading.gpus:
            why = trials.why_never(home, gpu.uuid, reading.driver)
            if why is not None or reading.driver is None:
                say(f"GPU {gpu.index}: not tried: {why}")
                continue

            def free_mib(gpu: "Gpu" = gpu) -> int | None:
                now = (one for one in read_once(kind).gpus if one.uuid == gpu.uuid)
                return next((one.free_mib for one in now), None)

            trials.begin(home, gpu.uuid, reading.driver)
            try:
                verdict = rehearse(gpu.uuid, free_mib)
            except BaseException:  # Ctrl-C too: the machine has not gone down
                trials.call_off(home, gpu.uuid, reading.driver)
                raise
            if verdict.is_final:
                trials.end(home, gpu.uuid, reading.driver, verdict.passed, verdict.told)
            else:
                trials.call_off(home, gpu.uuid, reading.driver)
            word = "passed" if verdict.passed else "failed" if verdict.is_final else "not tried"
            say(f"GPU {gpu.index}: {word}: {verdict.told}")


def _refuse_live(home: Home) -> None:
    """Refuse while a run lives on this machine: a driver that fails may take the machine down. Raises IllegalMove."""
    from backprop.scheduler.store import integrity
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor.board import Board

    live = len(Board(home.root).others())
    if home.database.exists():
        with contextlib.closing(integrity.open_to_look(home)) as database:
            live += len(queries.live_runs(database))
    if live:
        raise IllegalMove(
            f"not tested while runs live here ({live}): a driver that fails may take the machine down;"
            " stop them first, or let them end"
        )
