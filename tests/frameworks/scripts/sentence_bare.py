"""sentence-transformers as most scripts use it: `trainer.train()`, and nothing about resuming."""

import argparse
import hashlib
import random
import time

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
    models,
)
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, TrainerCallback, set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--step_seconds", type=float, default=0.1)
options = parser.parse_args()


class Slow(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(options.step_seconds)


set_seed(0)
words = [f"w{number}" for number in range(60)]
tokenizer = Tokenizer(
    WordLevel({word: number for number, word in enumerate([*words, "<unk>", "<pad>"])}, unk_token="<unk>")
)
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
config = BertConfig(
    vocab_size=62,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=32,
    pad_token_id=61,
)
BertModel(config).save_pretrained("bert")
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>").save_pretrained(
    "bert"
)
model = SentenceTransformer(modules=[models.Transformer("bert"), models.Pooling(16)], device="cpu")
rng = random.Random(1)
pairs = [{side: " ".join(rng.choices(words, k=6)) for side in ("anchor", "positive")} for _ in range(192)]
trainer = SentenceTransformerTrainer(
    model=model,
    train_dataset=Dataset.from_list(pairs),
    loss=losses.MultipleNegativesRankingLoss(model),
    callbacks=[Slow()],
    args=SentenceTransformerTrainingArguments(
        output_dir="st",
        num_train_epochs=2,
        per_device_train_batch_size=8,
        use_cpu=True,
        logging_steps=5,
        report_to=[],
    ),
)
trainer.train()
weights = b"".join(value.float().numpy().tobytes() for value in model.state_dict().values())
print(f"finished at step {trainer.state.global_step} with loss {hashlib.sha256(weights).hexdigest()}")
