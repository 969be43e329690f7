"""JAX with a checkpoint manager: a folder for each save, written under another name; it restores the latest itself."""

import argparse
import os
import pickle
import shutil

import pace


class CheckpointManager:
    def __init__(self, directory, keep=2):
        self.directory, self.keep = directory, keep
        os.makedirs(directory, exist_ok=True)

    def all_steps(self):
        return sorted(int(name) for name in os.listdir(self.directory) if name.isdecimal())

    def latest_step(self):
        return max(self.all_steps(), default=None)

    def save(self, step, state):
        draft = os.path.join(self.directory, f"{step}.orbax-checkpoint-tmp")
        os.makedirs(os.path.join(draft, "default"), exist_ok=True)
        with open(os.path.join(draft, "default", "array_values"), "wb") as file:
            pickle.dump(state, file)
        for name in ("_CHECKPOINT_METADATA", "default/_METADATA"):
            with open(os.path.join(draft, name), "w") as file:
                file.write("{}")
        shutil.rmtree(os.path.join(self.directory, str(step)), ignore_errors=True)
        os.rename(draft, os.path.join(self.directory, str(step)))
        for old in self.all_steps()[: -self.keep]:
            shutil.rmtree(os.path.join(self.directory, str(old)))

    def restore(self, step):
        with open(os.path.join(self.directory, str(step), "default", "array_values"), "rb") as file:
            return pickle.load(file)


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--workdir", default="workdir")
args = parser.parse_args()

pace.start()
manager = CheckpointManager(os.path.join(args.workdir, "checkpoints"))
state, first = {"params": [0.0] * 16, "opt_state": [0.0] * 32}, 1
if manager.latest_step() is not None:
    state = manager.restore(manager.latest_step())
    first = manager.latest_step() + 1
for step in range(first, args.epochs + 1):
    pace.step(step)
    print(f"step: {step}, loss: {1 / step:.4f}", flush=True)
    if step % args.save_every == 0:
        manager.save(step, state)
pace.end()
