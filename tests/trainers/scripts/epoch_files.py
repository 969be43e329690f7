"""Plain PyTorch: a file for each save, and --resume."""

import argparse
import os

import pace
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--out", default="runs")
parser.add_argument("--resume", default=None, help="path to a checkpoint to resume from")
args = parser.parse_args()

pace.start()
model, optimizer = {"w": 0.0}, {"lr": 0.1, "momentum": [0.0] * 4}
start_epoch = 0
if args.resume:
    checkpoint = torch.load(args.resume, map_location="cpu")
    model, optimizer = checkpoint["model"], checkpoint["optimizer"]
    start_epoch = checkpoint["epoch"]
os.makedirs(args.out, exist_ok=True)
for epoch in range(start_epoch, args.epochs):
    pace.step(epoch + 1)
    print(f"Epoch [{epoch + 1}/{args.epochs}] loss: {1 / (epoch + 1):.4f}", flush=True)
    if (epoch + 1) % args.save_every == 0:
        state = {"model": model, "optimizer": optimizer, "epoch": epoch + 1}
        torch.save(state, os.path.join(args.out, f"epoch_{epoch + 1:03d}.pt"))
pace.end()
