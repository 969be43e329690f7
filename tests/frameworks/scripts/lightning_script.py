"""A Lightning script with its own argparse: `--ckpt_path` is handed to `trainer.fit`."""

import argparse
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(L.LightningModule):
    def __init__(self, step_seconds: float) -> None:
        super().__init__()
        self.step_seconds = step_seconds
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        self.log("train_loss", loss)
        time.sleep(
            self.step_seconds
        )  # what a step of a real model takes: the chain has to be cut in its middle
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_epochs", type=int, default=5)
    parser.add_argument("--ckpt_path", default=None)
    parser.add_argument("--step_seconds", type=float, default=0.2)
    args = parser.parse_args()

    L.seed_everything(0)
    inputs = torch.randn(320, 8)
    data = DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=16)
    trainer = L.Trainer(
        max_epochs=args.max_epochs,
        accelerator="cpu",
        devices=1,
        log_every_n_steps=10,
        enable_progress_bar=False,
        callbacks=[ModelCheckpoint()],
    )
    model = Regression(args.step_seconds)
    trainer.fit(model, data, ckpt_path=args.ckpt_path)
    with torch.no_grad():
        loss = nn.functional.mse_loss(model.net(inputs), inputs.sum(dim=1, keepdim=True))
    print(f"finished at step {trainer.global_step} with loss {loss.item()!r}")


if __name__ == "__main__":
    main()
