"""Plain PyTorch: the best weights alone, kept for the test at the end; nothing to resume with."""

import argparse

import pace
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--save", type=str, default="model.pt", help="path to save the final model")
args = parser.parse_args()

pace.start()
model = {"w": 0.0}
best_val_loss = None
try:
    for epoch in range(1, args.epochs + 1):
        pace.step(epoch)
        val_loss = max(1 / epoch, 1 / (4 * args.save_every))
        print(f"| end of epoch {epoch:3d} | valid loss {val_loss:5.2f}", flush=True)
        if not best_val_loss or val_loss < best_val_loss:
            with open(args.save, "wb") as f:
                torch.save(model, f)
            best_val_loss = val_loss
except KeyboardInterrupt:
    print("Exiting from training early")

with open(args.save, "rb") as f:
    model = torch.load(f)
pace.end()
