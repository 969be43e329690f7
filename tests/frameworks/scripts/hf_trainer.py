"""A Hugging Face Trainer script in the manner of the library's own examples (run_clm.py)."""

import time
from dataclasses import dataclass, field

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


@dataclass
class DataArguments:
    samples: int = field(default=512)
    block_size: int = field(default=16)
    step_seconds: float = field(default=0.2, metadata={"help": "stands in for a bigger model"})


class RandomTokens(Dataset):
    def __init__(self, samples, block_size):
        generator = torch.Generator().manual_seed(7)
        self.tokens = torch.randint(64, (samples, block_size), generator=generator)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


class Pace(TrainerCallback):
    def __init__(self, step_seconds):
        self.step_seconds = step_seconds

    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(
            self.step_seconds
        )  # what a step of a real model takes: the chain has to be cut in its middle


def main():
    parser = HfArgumentParser((DataArguments, TrainingArguments))
    data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)

    config = GPT2Config(vocab_size=64, n_positions=data_args.block_size, n_embd=16, n_layer=1, n_head=2)
    trainer = Trainer(
        model=AutoModelForCausalLM.from_config(config),
        args=training_args,
        train_dataset=RandomTokens(data_args.samples, data_args.block_size),
        callbacks=[Pace(data_args.step_seconds)],
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"finished at step {trainer.state.global_step} with loss {losses[-1]!r}")


if __name__ == "__main__":
    main()
