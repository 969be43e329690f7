"""What scenes on fake GPUs share."""

from tests.support.fake_gpus import queue
from tests.support.fakes import FakeGpu
from tests.support.harness import Bench, wait_until

A = FakeGpu("GPU-aaaa")
B = FakeGpu("GPU-bbbb")
HOLD = ("--", "--mib", "5000")


def cpu_run(bench: Bench) -> str:
    """Queue a run that needs no GPU and ends at once."""
    return queue(bench, "--gpus", "0", script=bench.script("cpu.py", "print('done')"))


def wait_for_output(bench: Bench, *texts: str, timeout_s: float = 60.0) -> None:
    """Wait until the first worker has printed all `texts`."""
    wait_until(lambda: all(text in bench.output() for text in texts), timeout_s=timeout_s, saw=bench.output)
