"""Checks whether the driver moves VRAM to RAM and back as `worker/executor/vram` relies on it, without a worker."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.executor.vram.canary import Canary, NoCanary
from backprop.worker.executor.vram.move_files import Direction, MoveAnswer
from backprop.worker.executor.vram.moving import PROGRAM, Move, NoAnswer, Stuck, order_for
from backprop.worker.executor.vram.rehearsal import rehearse
from backprop.worker.executor.vram.target import NoTarget, find_target
from backprop.worker.probes.nvml import Nvml
from backprop.worker.supervisor import process_tree
from benchmarks.gpu.child import TRAINER, holder
from benchmarks.gpu.device import free_mib
from benchmarks.gpu.finding import AGREE_MIB, CannotCheck, Check, Effort, Finding
from benchmarks.workbench import wait_until

KEEPER = (sys.executable, str(TRAINER), "keep", "--mib")
NOBODY = 65_534
SHARE = 0.8
"""Of the free memory that is moved at most."""
CONTEXT_MIB = 1024
"""More than any CUDA context takes."""
KILLS = 3


class _Moved:
    """One process whose VRAM is moved. Raises CannotCheck where no answer comes."""

    def __init__(self, gpu: Gpu, canary: Canary, folder: Path) -> None:
        self.canary = canary
        self._gpu, self._folder = gpu, folder
        self._number = 0
        self.is_stuck = False

    def move(self, wanted: Direction, mib: int) -> MoveAnswer:
        """Have it moved, and wait for that."""
        self._number += 1
        order = order_for(self._number, wanted, self.canary.identity, self._gpu.uuid, mib)
        try:
            return Move(self._folder, order).wait()
        except Stuck as error:
            self.is_stuck = True
            raise CannotCheck(f"{wanted}: {error}; its processes are left alone") from error
        except NoAnswer as error:
            raise CannotCheck(f"{wanted}: {error}") from error


@contextmanager
def _moved(gpu: Gpu, mib: int, with_torch: bool = False) -> Generator[_Moved]:
    """Run a process that holds `mib`, and end it. Raises CannotCheck."""
    folder = Path(tempfile.mkdtemp(prefix="backprop-gpu-"))
    try:
        canary = Canary(gpu.uuid, mib, program=KEEPER) if with_torch else Canary(gpu.uuid, mib)
    except NoCanary as error:
        raise CannotCheck(f"no process could hold {mib} MiB: {error}") from error
    moved = _Moved(gpu, canary, folder)
    try:
        yield moved
    except NoCanary as error:
        raise CannotCheck(f"the process that holds VRAM: {error}") from error
    finally:
        if moved.is_stuck:
            canary.leave()
        else:
            canary.kill()
            shutil.rmtree(folder, ignore_errors=True)


def vram_canary(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Move 256 MiB out and in as `backprop doctor --suspend-test` does."""
    nvml = Nvml()
    begun_s = time.monotonic()
    verdict = rehearse(gpu.uuid, lambda: free_mib(nvml, gpu.uuid), min(256, 2 * effort.moved_mib[0]))
    yield Finding(
        "canary of the suspend test", f"{verdict.told}; {time.monotonic() - begun_s:.1f} s", verdict.passed
    )
    yield Finding("driver, as it is remembered", nvml.read().driver or "not told")


def two_cuda_processes(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Tell one CUDA process from two in one run."""
    nvml, mib = Nvml(), effort.moved_mib[0] // 2
    with _moved(gpu, mib) as one, _moved(gpu, mib) as two:
        pids = (one.canary.identity.pid, two.canary.identity.pid)
        gpus = nvml.read().gpus
        try:
            found = f"{find_target([gpu.uuid], gpus, pids[:1]).mib} MiB"
        except NoTarget as error:
            found = str(error)
        yield Finding("one CUDA process is found", found, found.endswith("MiB"))
        try:
            found = f"moved as one: {find_target([gpu.uuid], gpus, pids)}"
        except NoTarget as error:
            found = f"not moved: {error}"
        yield Finding("two are recognised", found, found.startswith("not moved: it has 2"))


def vram_out_and_in(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Move a PyTorch process of several sizes out, freeze it, continue it, move it in; compare checksums."""
    nvml, have_mib = Nvml(), 0
    sizes = [mib for mib in effort.moved_mib if mib < SHARE * (gpu.free_mib or 0)]
    with _moved(gpu, sizes[0], with_torch=True) as moved:
        for mib in sizes:
            if have_mib and mib > have_mib:
                moved.canary.ask(f"grow {mib - have_mib}")
            have_mib = max(mib, have_mib)
            yield _cycle(moved, gpu, nvml, mib)


def _cycle(moved: _Moved, gpu: Gpu, nvml: Nvml, mib: int) -> Finding:
    held, pid = moved.canary.digest, moved.canary.identity.pid
    taken_mib = free_mib(nvml, gpu.uuid)
    out = moved.move("out", mib)
    freed_mib, ram_mib = free_mib(nvml, gpu.uuid) - taken_mib, _resident_mib(pid)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_tree.stopped(moved.canary.identity), timeout_s=10)
    os.kill(pid, signal.SIGCONT)
    back = moved.move("in", mib)
    begun_s = time.monotonic()
    same = moved.canary.ask() == held
    told = (
        f"out {_speed(out, mib)}, {freed_mib} MiB freed, {ram_mib} MiB of RAM; in {_speed(back, mib)};"
        f" goes on after {(time.monotonic() - begun_s) * 1000:.0f} ms; content {'the same' if same else 'ANOTHER'}"
    )
    good = out.is_out and back.runs and same and freed_mib >= mib - AGREE_MIB
    return Finding(f"{mib} MiB of PyTorch out, frozen, continued, in", told, good)


def _speed(answer: MoveAnswer, mib: int) -> str:
    if answer.what is not None:
        return f"{answer.reached}, {answer.what}, {answer.seconds:.1f} s"
    return f"{answer.seconds:.2f} s ({mib / 1024 / max(answer.seconds, 1e-3):.1f} GiB/s)"


def _resident_mib(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)


def full_gpu(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Restore into a GPU that is full: that must fail and not hang; tell whether it succeeds once there is room."""
    nvml, mib = Nvml(), effort.moved_mib[0]
    with _moved(gpu, mib) as moved:
        held = moved.canary.digest
        yield Finding(f"{mib} MiB out", _speed(moved.move("out", mib), mib))
        fill_mib = free_mib(nvml, gpu.uuid) - mib // 2 - (CONTEXT_MIB // 2 if mib > CONTEXT_MIB else 0)
        with holder(gpu.uuid, fill_mib):
            left_mib = free_mib(nvml, gpu.uuid)
            back = moved.move("in", mib)
            yield Finding(
                f"in again, where {left_mib} MiB are free",
                _speed(back, mib),
                not back.runs and left_mib < mib,
            )
        again = moved.move("in", mib)
        told = _speed(again, mib)
        if again.runs:
            told += f"; content {'the same' if moved.canary.ask() == held else 'ANOTHER'}"
        yield Finding("in once more, with room", told)


def ordinary_user(gpu: Gpu, _effort: Effort) -> Iterator[Finding]:
    """Do the same as a user without rights, where these checks run as root."""
    what = "canary as an ordinary user"
    if os.geteuid() != 0:
        yield Finding(what, f"the one above was one: uid {os.geteuid()}")
        return
    with tempfile.TemporaryDirectory(prefix="backprop-gpu-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        source = Path(PROGRAM[-1])
        worker = source.parents[2]
        for part in (source, worker / "supervisor"):
            shutil.copytree(part, folder / part.relative_to(worker))
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        program = (os.path.realpath(PROGRAM[0]), *PROGRAM[1:-1], str(folder / source.relative_to(worker)))
        told = _as_nobody(gpu, program)
    good = {"passed": True, "failed": False}.get(told.partition(":")[0])
    yield Finding(what, told, good)


def _as_nobody(gpu: Gpu, program: tuple[str, ...]) -> str:
    """Rehearse in a child of another user; return what came of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            nvml = Nvml()
            verdict = rehearse(gpu.uuid, lambda: free_mib(nvml, gpu.uuid), 64, program=program)
            word = ("passed" if verdict.passed else "failed") if verdict.is_final else "not tried"
            os.write(writer, f"{word}: {verdict.told}".encode())
        except Exception as error:
            os.write(writer, f"not tried: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        told = file.read().decode()
    os.waitpid(child, 0)
    return told


def kill_after_restore(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """End processes whose VRAM has come back, and measure when it is free. Comes last: it may hang the machine."""
    nvml, mib = Nvml(), effort.moved_mib[0]
    idle_mib, taken_ms = free_mib(nvml, gpu.uuid), list[float]()
    for _ in range(KILLS):
        with _moved(gpu, mib) as moved:
            if not moved.move("out", mib).is_out or not moved.move("in", mib).runs:
                raise CannotCheck("its VRAM was not moved")
            begun_s = time.monotonic()
            moved.canary.kill()
            while free_mib(nvml, gpu.uuid) < idle_mib - AGREE_MIB:
                if time.monotonic() - begun_s > 60:
                    raise CannotCheck("its VRAM is not back after 60 s")
            taken_ms.append((time.monotonic() - begun_s) * 1000)
    told = ", ".join(f"{each:.0f} ms" for each in taken_ms)
    yield Finding("VRAM back after kill -9 of a restored process", told, agrees=True)


CHECKS: tuple[Check, ...] = (
    vram_canary,
    two_cuda_processes,
    vram_out_and_in,
    full_gpu,
    ordinary_user,
    kill_after_restore,
)
