"""TRL's SFTTrainer as most scripts use it: `trainer.train()`, and nothing about resuming."""

import argparse
import hashlib
import random
import time

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--step_seconds", type=float, default=0.1)
options = parser.parse_args()


class Slow(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(options.step_seconds)


set_seed(0)
words = [f"w{number}" for number in range(60)]
vocabulary = {word: number for number, word in enumerate([*words, "<unk>", "<pad>", "<eos>"])}
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
rng = random.Random(1)
config = GPT2Config(
    vocab_size=63,
    n_positions=32,
    n_embd=16,
    n_layer=1,
    n_head=2,
    eos_token_id=62,
    bos_token_id=62,
    pad_token_id=61,
)
trainer = SFTTrainer(
    model=GPT2LMHeadModel(config),
    processing_class=PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    ),
    train_dataset=Dataset.from_list([{"text": " ".join(rng.choices(words, k=10))} for _ in range(192)]),
    callbacks=[Slow()],
    args=SFTConfig(
        output_dir="sft",
        num_train_epochs=2,
        use_cpu=True,
        bf16=False,
        logging_steps=5,
        report_to=[],
        max_length=16,
    ),
)
trainer.train()
weights = b"".join(value.float().numpy().tobytes() for value in trainer.model.state_dict().values())
print(f"finished at step {trainer.state.global_step} with loss {hashlib.sha256(weights).hexdigest()}")
