"""A saver that follows a metric, not the clock: --resume finds the best epoch, which soon lies far behind."""

import argparse
import os

import pace
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--resume", default=None, type=str, help="path to the checkpoint to resume from")
args = parser.parse_args()
pace.start()
model, optimizer, best, start = {"w": 0.0}, {"lr": 0.1}, 0.0, 0
if args.resume:
    checkpoint = torch.load(args.resume, map_location="cpu")
    model, optimizer = checkpoint["model"], checkpoint["optimizer"]
    start, best = checkpoint["epoch"], checkpoint["best"]
os.makedirs("saved", exist_ok=True)
for epoch in range(start + 1, args.epochs + 1):
    pace.step(epoch)
    accuracy = min(epoch, 3 * args.save_every) / 1000
    print(f"epoch {epoch} accuracy {accuracy:.3f}", flush=True)
    if accuracy > best and epoch % args.save_every == 0:
        best = accuracy
        state = {"model": model, "optimizer": optimizer, "epoch": epoch, "best": best}
        torch.save(state, os.path.join("saved", "model_best.pth"))
pace.end()
