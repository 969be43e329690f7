"""The Hugging Face Trainer as most scripts use it: `trainer.train()`, and nothing about resuming."""

import argparse
import hashlib
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--step_seconds", type=float, default=0.1)
options = parser.parse_args()


class Slow(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(options.step_seconds)


set_seed(0)
tokens = torch.randint(64, (256, 16), generator=torch.Generator().manual_seed(7))
trainer = Trainer(
    model=GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2)),
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=3,
        save_strategy="no",
        logging_steps=5,
        use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
    callbacks=[Slow()],
)
trainer.train()
weights = b"".join(value.numpy().tobytes() for value in trainer.model.state_dict().values())
print(f"finished at step {trainer.state.global_step} with loss {hashlib.sha256(weights).hexdigest()}")
