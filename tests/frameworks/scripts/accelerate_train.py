"""An accelerate script in the manner of the library's checkpointing example: `step_N` folders."""

import argparse
import os
import time

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_epochs", type=int, default=4)
    parser.add_argument("--checkpointing_steps", type=int, default=20)
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--resume_from_checkpoint", default=None, help="a step_N folder")
    parser.add_argument("--step_seconds", type=float, default=0.2)
    args = parser.parse_args()

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    set_seed(0)
    inputs = torch.randn(400, 8)
    data = DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)

    overall_step = 0
    starting_epoch = 0
    resume_step = None
    if args.resume_from_checkpoint:
        accelerator.print(f"Resumed from checkpoint: {args.resume_from_checkpoint}")
        accelerator.load_state(args.resume_from_checkpoint)
        overall_step = int(os.path.basename(args.resume_from_checkpoint).replace("step_", ""))
        starting_epoch = overall_step // len(data)
        resume_step = overall_step - starting_epoch * len(data)

    for epoch in range(starting_epoch, args.num_epochs):
        model.train()
        data.set_epoch(epoch)
        if resume_step:
            batches = accelerator.skip_first_batches(data, resume_step)
            resume_step = None
        else:
            batches = data
        for batch_inputs, batch_targets in batches:
            loss = nn.functional.mse_loss(model(batch_inputs), batch_targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            time.sleep(
                args.step_seconds
            )  # what a step of a real model takes: the chain has to be cut in its middle
            overall_step += 1
            if overall_step % args.checkpointing_steps == 0:
                accelerator.save_state(os.path.join(args.output_dir, f"step_{overall_step}"))
        accelerator.print(f"epoch {epoch}: loss {loss.item():.4f}")
    with torch.no_grad():
        loss = nn.functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))
    accelerator.print(f"finished at step {overall_step} with loss {loss.item()!r}")


if __name__ == "__main__":
    main()
