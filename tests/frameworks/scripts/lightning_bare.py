"""Lightning as most scripts use it: `trainer.fit(model)`, the best model kept, and nothing about resuming."""

import argparse
import hashlib
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--step_seconds", type=float, default=0.1)
parser.add_argument("--batch_size", type=int, default=16)
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()


class Regression(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.batches = 0
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))

    def train_dataloader(self):
        return DataLoader(data, batch_size=options.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(data, batch_size=64)

    def training_step(self, batch, batch_idx):
        time.sleep(options.step_seconds)
        self.batches += 1
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def on_train_epoch_end(self):
        self.log("per_batch", 1.0 / self.batches)  # as loggers do that sum over the batches they have seen
        self.batches = 0

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


L.seed_everything(0)
inputs = torch.randn(640, 8)
data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
model = Regression()
trainer = L.Trainer(
    max_epochs=options.epochs,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    callbacks=[ModelCheckpoint(monitor="val_loss", save_top_k=1)],
)
trainer.fit(model)
weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
print(f"finished at step {trainer.global_step} with loss {hashlib.sha256(weights).hexdigest()}")
