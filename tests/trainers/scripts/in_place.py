"""Plain PyTorch: one file, overwritten in place, that it loads by itself where it exists."""

import argparse
import os

import pace
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
args = parser.parse_args()
PATH = os.path.join("state", "last.pt")

pace.start()
os.makedirs("state", exist_ok=True)
model, optimizer = {"w": 0.0}, {"lr": 0.1}
epoch = 0
if os.path.exists(PATH):
    saved = torch.load(PATH, map_location="cpu")
    model, optimizer = saved["model"], saved["optimizer"]
    epoch = saved["epoch"]
while epoch < args.epochs:
    epoch += 1
    pace.step(epoch)
    print(f"epoch {epoch}: train loss {1 / epoch:.4f}", flush=True)
    if epoch % args.save_every == 0:
        torch.save({"epoch": epoch, "model": model, "optimizer": optimizer}, PATH)
pace.end()
with open("history.csv", "w") as file:
    print("epochs", args.epochs, file=file)
