"""Plain PyTorch: argparse, `--resume PATH`, a numbered file every so many steps."""

import argparse
import os
import time

import torch
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save-every", type=int, default=20)
    parser.add_argument("--save-dir", default="checkpoints")
    parser.add_argument("--resume", default="", help="path of a checkpoint to continue from")
    parser.add_argument("--step-seconds", type=float, default=0.2)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    if args.resume:
        state = torch.load(args.resume)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        step = state["step"]
        print(f"resumed from {args.resume} at step {step}")

    os.makedirs(args.save_dir, exist_ok=True)
    while step < args.steps:
        inputs = torch.randn(16, 8)
        loss = nn.functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(
            args.step_seconds
        )  # what a step of a real model takes: the chain has to be cut in its middle
        step += 1
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
        if step % args.save_every == 0:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "step": step,
            }
            torch.save(state, os.path.join(args.save_dir, f"step_{step}.pt"))

    model.eval()
    with torch.no_grad():
        inputs = torch.randn(256, 8, generator=torch.Generator().manual_seed(7))
        loss = nn.functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))
    print(f"finished at step {step} with loss {loss.item()!r}")


if __name__ == "__main__":
    main()
