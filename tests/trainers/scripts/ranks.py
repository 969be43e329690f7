"""What such a launcher starts: rank 0 saves a snapshot in place, and loads it where it exists."""

import argparse
import os

import pace
import torch


class Trainer:
    def __init__(self, snapshot_path):
        self.rank = int(os.environ.get("RANK", "0"))
        self.model, self.epochs_run, self.snapshot_path = {"w": 0.0}, 0, snapshot_path
        if self.rank == 0 and os.path.exists(snapshot_path):  # the others start while it is written
            snapshot = torch.load(snapshot_path, map_location="cpu")
            self.model = snapshot["MODEL_STATE"]
            self.epochs_run = snapshot["EPOCHS_RUN"]

    def train(self, max_epochs, save_every):
        for epoch in range(self.epochs_run, max_epochs):
            if self.rank == 0:
                pace.step(epoch + 1)
                print(f"[GPU{self.rank}] Epoch {epoch} | Batchsize: 32 | Steps: 64", flush=True)
            else:
                pace.wait()
            if self.rank == 0 and (epoch + 1) % save_every == 0:
                torch.save({"MODEL_STATE": self.model, "EPOCHS_RUN": epoch + 1}, self.snapshot_path)


parser = argparse.ArgumentParser(description="simple distributed training job")
parser.add_argument("--epochs", type=int)
parser.add_argument("--save-every", type=int)
args = parser.parse_args()
if os.environ.get("RANK", "0") == "0":
    pace.start()
Trainer("snapshot.pt").train(args.epochs, args.save_every)
if os.environ.get("RANK", "0") == "0":
    pace.end()
