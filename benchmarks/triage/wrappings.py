"""The ways in which a program is run: what else its output holds, and what stands before and behind its traceback."""

from dataclasses import dataclass
from typing import Final

FAKE_LIBRARY: Final = """
import os, signal, sys

def _kind(name, base):
    module, _, last = name.rpartition(".")
    if not module:
        return base
    return type(last, (base,), {"__module__": module})

def fail(name, base, text):
    raise _kind(name, base)(text)

def say(text):
    print(text, file=sys.stderr, flush=True)

def die(text, number):
    sys.stdout.flush()
    say(text)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
"""
"""Stands among the installed packages, and raises what they would."""

NOISE: Final = (
    "warning: CUDA out of memory with batch size 64, trying 32",
    "[Errno 2] No such file or directory: 'cache/index.bin'; building it anew",
    "WARNING:root:Address already in use: metrics on port 6007 instead of 6006",
    "UserWarning: the loss is nan for 2 samples, which are skipped",
    "[Errno 13] Permission denied: '/root/.cache/torch', using /tmp",
    "ConnectionError: the hub is not reachable, using files of the cache",
    "ModuleNotFoundError: No module named 'apex'; going on with native amp",
    "[WARN] NCCL_P2P_DISABLE is set; NCCL error handling is off",
    "RuntimeWarning: divide by zero encountered in log",
    "Assertion of the schema is off",
    "Segmentation model loaded: 31M parameters",
    "error: 0.0312 (train) 0.0411 (val)",
    "disk usage: 93%, No space left for more than 3 checkpoints",
)
"""Lines of runs that go well, with words that mean trouble elsewhere."""

ORDINARY: Final = (
    "loading the data",
    "model has 124.44M parameters",
    "epoch 1 step 100 loss 2.3145 lr 0.0003",
    "epoch 1 step 200 loss 2.1034 lr 0.0003",
    "{'loss': 1.93, 'grad_norm': 0.8, 'epoch': 1.5}",
    "val_bpb: 1.0231",
    "saved checkpoints/step_200.pt",
)

WANDB_FOOTER: Final = """wandb:
wandb: Run history:
wandb: loss ▁▃▅▇█
wandb: Run summary:
wandb: loss 0.512
wandb:
wandb: 🚀 View run breezy-frog-7 at: https://wandb.ai/ada/runs/ab12cd34
wandb: ⭐️ View project at: https://wandb.ai/ada/runs
wandb: Synced 5 W&B file(s), 0 media file(s), 0 artifact file(s) and 0 other file(s)
wandb: Find logs at: ./wandb/run-20261128_061436-ab12cd34/logs
"""
"""As wandb's console handler prints it when a run ends (wandb/sdk/wandb_run.py)."""


@dataclass(frozen=True)
class Wrapping:
    """One way. `main`: the end of train.py, with CALL for the call of the program's function. `command`: with PYTHON
    and BIN. `needs_fw`: needs the interpreter with the frameworks. `plain`: may be used where nothing is raised."""

    name: str
    main: str
    command: tuple[str, ...] = ("PYTHON", "train.py")
    needs_fw: bool = False
    plain: bool = True


_CALL: Final = "if __name__ == '__main__':\n    CALL\n"
_TORCHRUN: Final = ("PYTHON", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
_RANKED: Final = """
import torch.distributed as dist
def main():
    dist.init_process_group("gloo")
    dist.barrier()
    CALL
if __name__ == '__main__':
    main()
"""
WRAPPINGS: Final = (
    Wrapping("plain", _CALL),
    Wrapping("noise", _CALL),
    Wrapping(
        "tqdm",
        """
from tqdm import tqdm
def main():
    for step in tqdm(range(100), desc="train"):
        if step == 37:
            CALL
if __name__ == '__main__':
    main()
""",
        needs_fw=True,
    ),
    Wrapping("rich", "from rich.traceback import install\ninstall(width=100)\n" + _CALL, needs_fw=True),
    Wrapping(
        "rich locals",
        "from rich.traceback import install\ninstall(show_locals=True)\n" + _CALL,
        needs_fw=True,
    ),
    Wrapping(
        "logged",
        """
import logging, sys
logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
def main():
    try:
        CALL
    except Exception:
        logging.getLogger("train").exception("training failed")
        sys.exit(1)
if __name__ == '__main__':
    main()
""",
    ),
    Wrapping(
        "hydra",
        """
import sys, traceback
def main():
    try:
        CALL
    except Exception:
        print("Error executing job with overrides: ['lr=0.1']", file=sys.stderr)
        traceback.print_exc()
        print("\\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.", file=sys.stderr)
        sys.exit(1)
if __name__ == '__main__':
    main()
""",
    ),
    Wrapping(
        "reraised",
        """
def main():
    try:
        CALL
    except Exception as error:
        raise RuntimeError("training failed at step 120") from error
if __name__ == '__main__':
    main()
""",
    ),
    Wrapping(
        "wandb",
        "import atexit, sys\natexit.register(lambda: print(open('footer.txt').read(), file=sys.stderr))\n"
        + _CALL,
    ),
    Wrapping("shell", _CALL, ("bash", "-c", 'PYTHON train.py; code=$?; echo "exit: $code"; exit $code')),
    Wrapping("module", _CALL, ("PYTHON", "-u", "-m", "train")),
    Wrapping("torchrun", _CALL, (*_TORCHRUN, "1", "train.py"), needs_fw=True),
    Wrapping("ranks", _RANKED, (*_TORCHRUN, "2", "train.py"), needs_fw=True, plain=False),
    Wrapping("tee", _CALL, (*_TORCHRUN, "1", "--log-dir", "logs", "--tee", "3", "train.py"), needs_fw=True),
    Wrapping("accelerate", _CALL, ("BIN/accelerate", "launch", "--cpu", "train.py"), needs_fw=True),
    Wrapping(
        "lightning",
        """
import torch, lightning
class Module(lightning.LightningModule):
    def training_step(self, batch, number):
        CALL
    def configure_optimizers(self):
        return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
if __name__ == '__main__':
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(Module(), torch.utils.data.DataLoader(list(range(4))))
""",
        needs_fw=True,
        plain=False,
    ),
    Wrapping(
        "in a data worker",
        """
import torch
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, number):
        CALL
if __name__ == '__main__':
    for batch in torch.utils.data.DataLoader(Data(), num_workers=1):
        pass
""",
        needs_fw=True,
        plain=False,
    ),
    Wrapping(
        "pool",
        """
from concurrent.futures import ProcessPoolExecutor
def work(number):
    CALL
if __name__ == '__main__':
    with ProcessPoolExecutor(1) as pool:
        print(list(pool.map(work, [1])))
""",
        plain=False,
    ),
    Wrapping(
        "task group",
        """
import asyncio
async def work():
    CALL
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(work())
if __name__ == '__main__':
    asyncio.run(main())
""",
        plain=False,
    ),
    Wrapping(
        "cleaned up",
        """
def main():
    try:
        CALL
    finally:
        print("closing the files")
        print("run directory: outputs/2026-11-28/06-14-36")
if __name__ == '__main__':
    main()
""",
    ),
)
