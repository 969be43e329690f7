"""timm's saver: a draft that is renamed, hard links for last and best, the three best kept, a summary beside."""

import argparse
import glob
import os

import pace
import torch


class CheckpointSaver:
    def __init__(self, folder, keep=3):
        self.folder, self.keep, self.files = folder, keep, []

    def save_checkpoint(self, state, epoch):
        draft = os.path.join(self.folder, "tmp.pth.tar")
        last = os.path.join(self.folder, "last.pth.tar")
        torch.save(state, draft)
        os.replace(draft, last)
        path = os.path.join(self.folder, f"checkpoint-{epoch}.pth.tar")
        if os.path.exists(path):
            os.unlink(path)
        os.link(last, path)
        self.files = sorted(
            glob.glob(os.path.join(self.folder, "checkpoint-*.pth.tar")),
            key=lambda name: int(name.rpartition("-")[2].partition(".")[0]),
        )
        for old in self.files[: -self.keep]:
            os.unlink(old)


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=300)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--output", default="output", type=str, metavar="PATH", help="path to output folder")
parser.add_argument("--experiment", default="base", type=str, metavar="NAME", help="name of train experiment")
parser.add_argument(
    "--resume",
    default="",
    type=str,
    metavar="PATH",
    help="Resume full model and optimizer state from checkpoint",
)
args = parser.parse_args()

pace.start()
model, optimizer, start_epoch = {"w": 0.0}, {"lr": 0.1}, 0
if args.resume:
    loaded = torch.load(args.resume, map_location="cpu")
    model, optimizer = loaded["state_dict"], loaded["optimizer"]
    start_epoch = loaded["epoch"] + 1
folder = os.path.join(args.output, args.experiment)
os.makedirs(folder, exist_ok=True)
saver = CheckpointSaver(folder)
for epoch in range(start_epoch, args.epochs):
    pace.step(epoch + 1)
    print(f"Train: {epoch} [  99/100 (100%)]  Loss: {1 / (epoch + 1):#.3g}", flush=True)
    if (epoch + 1) % args.save_every == 0:
        saver.save_checkpoint({"epoch": epoch, "state_dict": model, "optimizer": optimizer}, epoch)
    with open(os.path.join(folder, "summary.csv"), "a") as file:
        print(epoch, 1 / (epoch + 1), sep=",", file=file)
pace.end()
