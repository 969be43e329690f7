"""LightningCLI: `fit --trainer.max_epochs 6 --ckpt_path PATH`."""

import time

import lightning as L
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(L.LightningModule):
    def __init__(self, hidden: int = 32, step_seconds: float = 0.2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        self.log("train_loss", loss)
        time.sleep(
            self.hparams.step_seconds
        )  # what a step of a real model takes: the chain has to be cut in its middle
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Sums(L.LightningDataModule):
    def __init__(self, samples: int = 320, batch_size: int = 16) -> None:
        super().__init__()
        self.samples = samples
        self.batch_size = batch_size

    def train_dataloader(self):
        inputs = torch.randn(self.samples, 8, generator=torch.Generator().manual_seed(7))
        data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
        return DataLoader(data, batch_size=self.batch_size)


if __name__ == "__main__":
    cli = LightningCLI(Regression, Sums, seed_everything_default=0)
    inputs, targets = cli.datamodule.train_dataloader().dataset[:]
    with torch.no_grad():
        loss = nn.functional.mse_loss(cli.model.net(inputs), targets)
    print(f"finished at step {cli.trainer.global_step} with loss {loss.item()!r}")
