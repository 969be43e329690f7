"""Plain PyTorch: the arguments lie in the checkpoint too, so it can't be loaded as weights only."""

import argparse
import pathlib

import pace
import torch


def main(args):
    pace.start()
    state, start = {"w": [0.0] * 8}, 0
    if args.resume:
        checkpoint = torch.load(args.resume, map_location="cpu")
        state = checkpoint["model"]
        start = checkpoint["epoch"] + 1
    output_dir = pathlib.Path(args.output_dir)
    output_dir.mkdir(exist_ok=True)
    for epoch in range(start, args.epochs):
        pace.step(epoch + 1)
        print(f"Epoch: [{epoch + 1}] loss: {1 / (epoch + 1):.4f}", flush=True)
        if (epoch + 1) % args.save_every == 0:
            to_save = {"model": state, "optimizer": {"lr": args.lr}, "epoch": epoch, "args": args}
            torch.save(to_save, output_dir / f"checkpoint-{epoch}.pth")
    pace.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("pre-training", add_help=False)
    parser.add_argument("--epochs", default=400, type=int)
    parser.add_argument("--save-every", default=1, type=int)
    parser.add_argument("--lr", default=0.1, type=float)
    parser.add_argument("--output_dir", default="output_dir", help="path where to save, empty for no saving")
    parser.add_argument("--resume", default="", help="resume from checkpoint")
    main(parser.parse_args())
