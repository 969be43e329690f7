"""Hugging Face Trainer with Backprop's callback; of its own it saves nothing before the end."""

import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import backprop
from backprop.integrations.transformers import BackpropCallback


class Slow(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(0.1)  # what a step of a real model takes: it has to be asked in the middle

    def on_step_end(self, args, state, control, **kwargs):
        print(f"step {state.global_step}")


set_seed(0)
tokens = torch.randint(64, (256, 16), generator=torch.Generator().manual_seed(7))
trainer = Trainer(
    model=GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2)),
    args=TrainingArguments(
        output_dir="out", max_steps=80, save_strategy="no", logging_steps=5, use_cpu=True, disable_tqdm=True
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
    callbacks=[Slow(), BackpropCallback()],
)
trainer.train(resume_from_checkpoint=backprop.resume_from())
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"finished at step {trainer.state.global_step} with loss {losses[-1]!r}")
