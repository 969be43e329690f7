"""A Trainer's folders: output_dir/checkpoint-N with its state, two kept; --resume_from_checkpoint; a final model."""

import argparse
import json
import os
import shutil

import pace
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir", default="out")
parser.add_argument("--epochs", dest="max_steps", type=int, default=100)
parser.add_argument("--save-every", dest="save_steps", type=int, default=10)
parser.add_argument(
    "--resume_from_checkpoint",
    type=str,
    default=None,
    help="the folder with a valid checkpoint for the model",
)
args = parser.parse_args()


def save(step):
    folder = os.path.join(args.output_dir, f"checkpoint-{step}")
    os.makedirs(folder, exist_ok=True)
    torch.save({"w": 0.0}, os.path.join(folder, "pytorch_model.bin"))
    torch.save({"state": [0.0] * 8}, os.path.join(folder, "optimizer.pt"))
    torch.save({"last_epoch": step}, os.path.join(folder, "scheduler.pt"))
    with open(os.path.join(folder, "trainer_state.json"), "w") as file:
        json.dump({"global_step": step, "max_steps": args.max_steps}, file)
    kept = [name for name in os.listdir(args.output_dir) if name.startswith("checkpoint-")]
    for name in sorted(kept, key=lambda name: int(name.rpartition("-")[2]))[:-2]:
        shutil.rmtree(os.path.join(args.output_dir, name))


pace.start()
step = 0
if args.resume_from_checkpoint:
    torch.load(os.path.join(args.resume_from_checkpoint, "optimizer.pt"), map_location="cpu")
    with open(os.path.join(args.resume_from_checkpoint, "trainer_state.json")) as file:
        step = json.load(file)["global_step"]
os.makedirs(args.output_dir, exist_ok=True)
while step < args.max_steps:
    step += 1
    pace.step(step)
    print({"loss": round(1 / step, 4), "step": step, "epoch": round(step / args.max_steps, 2)}, flush=True)
    if step % args.save_steps == 0:
        save(step)
pace.end()
torch.save({"w": 0.0}, os.path.join(args.output_dir, "pytorch_model.bin"))
