"""nanoGPT style: globals overridden by `--key=value`, `init_from=resume`, one `ckpt.pt` overwritten in place."""

import os
import sys
import time
from ast import literal_eval

import torch
from torch import nn
from torch.nn import functional as F

# -----------------------------------------------------------------------------
# I/O
out_dir = "out"
eval_interval = 20
log_interval = 10
init_from = "scratch"  # 'scratch' or 'resume'
# model
n_embd = 32
block_size = 16
vocab_size = 64
# optimizer
batch_size = 8
learning_rate = 1e-3
max_iters = 100
# stands in for a bigger model
iter_seconds = 0.2
# -----------------------------------------------------------------------------
config_keys = [
    k for k, v in globals().items() if not k.startswith("_") and isinstance(v, (int, float, bool, str))
]
for arg in sys.argv[1:]:
    assert arg.startswith("--")
    key, val = arg.split("=")
    key = key[2:]
    if key not in config_keys:
        raise ValueError(f"Unknown config key: {key}")
    try:
        attempt = literal_eval(val)
    except (SyntaxError, ValueError):
        attempt = val
    print(f"Overriding: {key} = {attempt}")
    globals()[key] = attempt
# -----------------------------------------------------------------------------

os.makedirs(out_dir, exist_ok=True)
torch.manual_seed(1337)
data = torch.randint(vocab_size, (4096,), generator=torch.Generator().manual_seed(7))


def get_batch(iteration):
    offsets = torch.Generator().manual_seed(iteration)
    ix = torch.randint(len(data) - block_size - 1, (batch_size,), generator=offsets)
    x = torch.stack([data[i : i + block_size] for i in ix])
    y = torch.stack([data[i + 1 : i + 1 + block_size] for i in ix])
    return x, y


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)

    def forward(self, idx, targets):
        x = self.wte(idx)
        logits = self.lm_head(x + self.mlp(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
iter_num = 0
if init_from == "scratch":
    print("Initializing a new model from scratch")
elif init_from == "resume":
    print(f"Resuming training from {out_dir}")
    checkpoint = torch.load(os.path.join(out_dir, "ckpt.pt"))
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    iter_num = checkpoint["iter_num"]

while True:
    if iter_num % eval_interval == 0 and iter_num > 0:
        checkpoint = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "iter_num": iter_num,
        }
        print(f"saving checkpoint to {out_dir}")
        torch.save(checkpoint, os.path.join(out_dir, "ckpt.pt"))
    X, Y = get_batch(iter_num)
    loss = model(X, Y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    time.sleep(iter_seconds)  # what an iteration of a real model takes: the chain has to be cut in its middle
    if iter_num % log_interval == 0:
        print(f"iter {iter_num}: loss {loss.item():.4f}")
    iter_num += 1
    if iter_num > max_iters:
        break
print(f"finished at step {iter_num} with loss {loss.item()!r}")
