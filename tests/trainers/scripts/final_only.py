"""The final weights alone, and an image of each epoch."""

import argparse
import os

import pace
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--save-model", action="store_true", default=False, help="For Saving the current Model")
args = parser.parse_args()
pace.start()
os.makedirs("results", exist_ok=True)
for epoch in range(1, args.epochs + 1):
    pace.step(epoch)
    print(f"Train Epoch: {epoch} [0/60000 (0%)]\tLoss: {1 / epoch:.6f}", flush=True)
    with open(f"results/sample_{epoch}.png", "wb") as file:
        file.write(b"\x89PNG")
pace.end()
if args.save_model:
    torch.save({"w": 0.0}, "mnist_cnn.pt")
