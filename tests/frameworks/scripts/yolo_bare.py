"""Trains a tiny YOLO on made images, as people write it: one call, and nothing about resuming."""

import argparse
from pathlib import Path

import numpy
from PIL import Image
from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--images", type=int, default=16)
options = parser.parse_args()

if not Path("data.yaml").exists():
    random = numpy.random.default_rng(0)
    for part in ("train", "val"):
        for folder in ("images", "labels"):
            Path(f"data/{folder}/{part}").mkdir(parents=True)
        for number in range(options.images):
            image = random.integers(0, 60, (64, 64, 3), dtype=numpy.uint8)
            left, top = random.integers(4, 28, 2)
            image[top : top + 28, left : left + 28] = 230
            Image.fromarray(image).save(f"data/images/{part}/{number}.png")
            Path(f"data/labels/{part}/{number}.txt").write_text(
                f"0 {(left + 14) / 64} {(top + 14) / 64} {28 / 64} {28 / 64}\n"
            )
    Path("data.yaml").write_text(
        f"path: {Path('data').absolute()}\ntrain: images/train\nval: images/val\nnames: [box]\n"
    )

YOLO("yolo11n.yaml").train(
    data="data.yaml",
    epochs=options.epochs,
    imgsz=64,
    batch=4,
    workers=0,
    plots=False,
    project=str(Path("runs").absolute()),
    name="boxes",
)
