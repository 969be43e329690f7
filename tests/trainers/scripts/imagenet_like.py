"""ImageNet's example: one file in place, a copy of the best, --resume and --start-epoch."""

import argparse
import os
import shutil

import pace
import torch

parser = argparse.ArgumentParser(description="ImageNet Training")
parser.add_argument("data", metavar="DIR", nargs="?", default="imagenet", help="path to dataset")
parser.add_argument("--epochs", default=90, type=int, metavar="N", help="number of total epochs to run")
parser.add_argument("--save-every", default=1, type=int)
parser.add_argument("--start-epoch", default=0, type=int, metavar="N", help="manual epoch number")
parser.add_argument("--resume", default="", type=str, metavar="PATH", help="path to latest checkpoint")
parser.add_argument("-e", "--evaluate", action="store_true", help="evaluate model on validation set")


def main():
    args = parser.parse_args()
    pace.start()
    model, optimizer, best = {"w": 0.0}, {"lr": 0.1}, 0.0
    if args.resume and os.path.isfile(args.resume):
        print(f"=> loading checkpoint '{args.resume}'")
        checkpoint = torch.load(args.resume, map_location="cpu")
        args.start_epoch = checkpoint["epoch"]
        best = checkpoint["best_acc1"]
        model, optimizer = checkpoint["state_dict"], checkpoint["optimizer"]
    for epoch in range(args.start_epoch, args.epochs):
        pace.step(epoch + 1)
        print(f"Epoch: [{epoch}][  0/100]\tLoss {1 / (epoch + 1):.4e}", flush=True)
        accuracy = float(epoch)
        is_best = accuracy >= best
        best = max(accuracy, best)
        if (epoch + 1) % args.save_every == 0:
            state = {"epoch": epoch + 1, "state_dict": model, "best_acc1": best, "optimizer": optimizer}
            save_checkpoint(state, is_best)
    pace.end()


def save_checkpoint(state, is_best, filename="checkpoint.pth.tar"):
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, "model_best.pth.tar")


if __name__ == "__main__":
    main()
