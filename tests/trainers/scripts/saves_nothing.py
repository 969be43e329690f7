"""A script that writes no file at all."""

import argparse

import pace

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
args = parser.parse_args()
pace.start()
for epoch in range(1, args.epochs + 1):
    pace.step(epoch)
    print(f"Epoch {epoch:02d}, Loss: {1 / epoch:.4f}", flush=True)
pace.end()
