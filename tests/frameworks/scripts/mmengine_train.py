"""An mmengine script in the manner of the OpenMMLab tools/train.py: `--work-dir`, `--resume [auto|PATH]`."""

import argparse
import time

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset


class Regression(BaseModel):
    def __init__(self, step_seconds):
        super().__init__()
        self.step_seconds = step_seconds
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, inputs, targets, mode):
        time.sleep(
            self.step_seconds
        )  # what a step of a real model takes: the chain has to be cut in its middle
        return {"loss": nn.functional.mse_loss(self.net(inputs), targets)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work-dir", default="work_dir")
    parser.add_argument(
        "--resume", nargs="?", type=str, const="auto", help="the latest checkpoint, or a path"
    )
    parser.add_argument("--max-epochs", type=int, default=5)
    parser.add_argument("--step-seconds", type=float, default=0.2)
    args = parser.parse_args()

    torch.manual_seed(0)
    inputs = torch.randn(320, 8)
    runner = Runner(
        model=Regression(args.step_seconds),
        work_dir=args.work_dir,
        train_dataloader={
            "batch_size": 16,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "collate_fn": {"type": "default_collate"},
            "dataset": TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)),
        },
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 1e-3}},
        train_cfg={"by_epoch": True, "max_epochs": args.max_epochs},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        load_from=args.resume if args.resume != "auto" else None,
        resume=args.resume is not None,
        randomness={"seed": 0},
    )
    runner.train()
    loss = float(runner.message_hub.get_scalar("train/loss").current())
    print(f"finished at step {runner.iter} with loss {loss!r}")


if __name__ == "__main__":
    main()
