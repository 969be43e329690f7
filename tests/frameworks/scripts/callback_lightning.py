"""Lightning with Backprop's callback, and a ModelCheckpoint of its own."""

import argparse
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import backprop
from backprop.integrations.lightning import BackpropCallback


class Regression(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        time.sleep(0.1)  # what a step of a real model takes: it has to be asked in the middle
        return nn.functional.mse_loss(self.net(inputs), targets)

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        time.sleep(args.validation_seconds)  # long enough to be asked in the middle of a validation
        print(f"validated {batch_idx}")
        return nn.functional.mse_loss(self.net(inputs), targets)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        print(f"step {self.global_step}")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


parser = argparse.ArgumentParser()
parser.add_argument("--validation-seconds", type=float, default=0.05)
args = parser.parse_args()

L.seed_everything(0)
inputs = torch.randn(640, 8)
data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
trainer = L.Trainer(
    max_epochs=2,
    accelerator="cpu",
    devices=1,
    log_every_n_steps=5,
    logger=False,
    num_sanity_val_steps=0,
    enable_progress_bar=False,
    callbacks=[BackpropCallback(), ModelCheckpoint(every_n_train_steps=10)],
)
trainer.fit(
    Regression(),
    DataLoader(data, batch_size=16),
    DataLoader(data, batch_size=64),
    ckpt_path=backprop.resume_from(),
)
print(f"finished at step {trainer.global_step} with loss nan")
