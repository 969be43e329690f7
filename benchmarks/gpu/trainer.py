"""Runs on the GPU for the checks: PyTorch, and nothing of ours.

hold --mib N [--grow]     takes N MiB (with --grow: 256 MiB more each half second, up to N) and fills them over and
                          over; prints "beat COUNT FREE_MIB TOTAL_MIB" ten times a second, by torch's mem_get_info
keep --mib N              takes N MiB with a known content, and says "ready SUM"; for each line on its standard input it
                          says "holds SUM" of what is there then, for "grow N" once it has taken so much more
train --steps N           trains a small network, deterministically; ends with "digest HEX" of all it has learned.
                          Saves on SIGINT and ends; goes on with --resume-from
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it alone

import torch

MIB = 1024 * 1024
GROW_MIB = 256
DEVICE = "cuda"


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold memory or train on a GPU, for benchmarks.gpu.check.")
    actions = parser.add_subparsers(dest="action", required=True)
    holding = actions.add_parser("hold")
    holding.add_argument("--mib", type=int, required=True)
    holding.add_argument("--grow", action="store_true")
    holding.add_argument("--seconds", type=float, default=3600.0)
    keeping = actions.add_parser("keep")
    keeping.add_argument("--mib", type=int, required=True)
    training = actions.add_parser("train")
    training.add_argument("--steps", type=int, required=True)
    training.add_argument("--resume-from", type=Path)
    options = parser.parse_args()
    if options.action == "keep":
        return keep(options.mib)
    print(f"torch {torch.__version__}, {torch.cuda.device_count()} visible", flush=True)
    if options.action == "hold":
        return hold(options.mib, options.grow, options.seconds)
    return train(options.steps, options.resume_from)


def hold(mib: int, grow: bool, seconds: float) -> int:
    steps = range(GROW_MIB, mib + 1, GROW_MIB) if grow else (mib,)
    held: list[torch.Tensor] = []
    have, beat, end_s = 0, 0, time.monotonic() + seconds
    for wanted in steps:
        held.append(torch.empty((wanted - have) * MIB, dtype=torch.uint8, device=DEVICE))
        have = wanted
        for _ in range(5 if grow else 1):
            beat = _beat(held, beat)
    while time.monotonic() < end_s:
        beat = _beat(held, beat)
    return 0


def _beat(held: list[torch.Tensor], beat: int) -> int:
    for part in held:
        part.fill_(beat % 256)
    free, total = torch.cuda.mem_get_info()
    print(f"beat {beat + 1} {free // MIB} {total // MIB}", flush=True)
    time.sleep(0.1)
    return beat + 1


def keep(mib: int) -> int:
    held: list[torch.Tensor] = []
    _grow(held, mib)
    print("ready", _sums(held), flush=True)
    for line in sys.stdin:
        if line.startswith("grow "):
            _grow(held, int(line.split()[1]))
        print("holds", _sums(held), flush=True)
    return 0


def _grow(held: list[torch.Tensor], mib: int) -> None:
    """Take `mib`, in parts that can be counted through by 32-bit numbers."""
    for begin in range(0, mib, GROW_MIB):
        numbers = min(GROW_MIB, mib - begin) * MIB // 4
        held.append(torch.arange(numbers, dtype=torch.int32, device=DEVICE))


def _sums(held: list[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for part in held:
        digest.update(str(int(part.sum().item())).encode())
    return f"{len(held)}-{digest.hexdigest()[:12]}"


def train(steps: int, resume_from: Path | None) -> int:
    stop_asked: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: stop_asked.append(number))
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(1024, 10)
    ).to(DEVICE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    done = 0
    if resume_from is not None:
        saved = torch.load(resume_from, map_location=DEVICE, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["step"]
    for step in range(done + 1, steps + 1):
        torch.manual_seed(step)  # data and dropout depend on the step alone, not on how often one has resumed
        inputs = torch.randn(512, 256, device=DEVICE)
        loss = torch.nn.functional.cross_entropy(network(inputs), inputs[:, :10].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            print(json.dumps({"step": step, "loss": loss.item()}), flush=True)
        if stop_asked and step < steps:
            _save(network, optimizer, step)
            return 0
    print(f"digest {_digest(network)}", flush=True)
    return 0


def _save(network: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    draft, path = Path("checkpoint.unfinished"), Path(f"checkpoint-{step}.pt")
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, draft)
    draft.replace(path)
    print(json.dumps({"event": "checkpoint_saved", "path": str(path), "step": step}), flush=True)


def _digest(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(bytes(value.detach().cpu().contiguous().view(torch.uint8).flatten().tolist()))
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
