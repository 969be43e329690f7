"""Play an agent for a night: edit a train.py, queue it, wait, read one number, keep or revert, never stop.

python agent.py --experiments 100

No model is asked: the edits come from a seed, and every fifth one has a fault planted, as agents make them. All that
is known of a night is in the queue: killed at any moment and started again, the agent asks for the same keys, gets the
same runs, and goes on. What it made of them is in results.tsv.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AHEAD = 2
"""So many experiments are queued while one is waited for: the GPU has no gap between two."""
WAIT = "240"
"""Seconds of one `wait`: agents' tools give up after five minutes."""
OF_A_GPU = '"CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB"'
PLANTED = {
    "syntax": "if True print('no colon')\n",
    "module": "import flash_attention_that_nobody_has\n",
    "GPU memory": f"class OutOfMemoryError(RuntimeError): pass\ndef save(*_): raise OutOfMemoryError({OF_A_GPU})\n",
    "division": "def save(step, _): return 1 / (step - step)\n",
    "NaN": "def loss_of(_): return float('nan')\n",
    "hang": "def loss_of(_): time.sleep(1e6)\n",
    "no result": "sys.exit(0)\n",
    "crash": "def after(save=save):\n"
    "    def crashing(*words): save(*words); raise RuntimeError('a tensor has the wrong shape')\n"
    "    return crashing\n",
    "killed": "if 'BACKPROP_RESUME_FROM' not in os.environ:\n"
    "    def loss_of(_, left=[15]): left[0] -= 1; return 1.0 if left[0] else os.kill(os.getpid(), 9)\n",
}
"""What goes wrong, and the edit that does it. It stands right before `main()`."""


@dataclass
class Result:
    number: int
    run: str
    text: str
    state: str
    metric: float | None
    cause: str


class Answers:
    """Asks `backprop`, and counts."""

    commands = 0
    longest = 0

    def ask(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(["backprop", *words], capture_output=True, text=True, check=False)
        self.commands += 1
        self.longest = max(self.longest, len(done.stdout))
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            sys.exit(f"backprop {' '.join(words)}: {done.stderr}")


def edited(text: str, number: int, seed: int, fault: str | None) -> str:
    """Return another train.py: a fault put in, or a setting changed."""
    if fault is not None:
        code = PLANTED[fault] + ("save = after()\n" if fault == "crash" else "")
        return text.replace("\nmain()\n", f"\n{code}main()\n")
    chance = random.Random(f"{seed} {number}")
    if chance.random() < 0.5:
        rate = chance.choice((0.5, 0.7, 1.5, 2.0))
        return re.sub(
            r"(?m)^LEARNING_RATE = (.*)$",
            lambda found: f"LEARNING_RATE = {min(float(found[1]) * rate, 0.2):.5f}",
            text,
        )
    more = chance.choice((-1, 1, 2))
    return re.sub(
        r"(?m)^DEGREE = (.*)$", lambda found: f"DEGREE = {min(max(int(found[1]) + more, 1), 6)}", text
    )


class Agent:
    """`fault_every`: every N-th experiment has a fault, each kind in turn."""

    def __init__(self, name: str, seed: int, fault_every: int, options: list[str]) -> None:
        self.table = Path("results.tsv")
        self.first = Path("train.first.py").read_text()
        self.name, self.seed, self.fault_every, self.options = name, seed, fault_every, options
        self.answers = Answers()
        self.results: list[Result] = []

    def best(self, among: int) -> Result | None:
        told = {one.metric: one for one in reversed(self.results[: max(among, 0)]) if one.metric is not None}
        return told[min(told)] if told else None

    def planted(self, number: int) -> str | None:
        times, left = divmod(number + 1, self.fault_every)
        return list(PLANTED)[(times - 1) % len(PLANTED)] if left == 0 else None

    def submit(self, number: int) -> tuple[str, str]:
        """Queue an experiment, once however often it is asked for; return its run and its text.

        It builds on the best that is known by now. Each has a file of its own: one file for all could change under a
        run that starts late, or under the `backprop run` of an agent that was killed.
        """
        best, key = self.best(number - AHEAD), f"{self.name}-{number:03}"
        text = edited(best.text if best else self.first, number, self.seed, self.planted(number))
        draft = Path(f"{key}.{os.getpid()}")
        draft.write_text(text)
        draft.replace(f"{key}.py")
        code, told = self.answers.ask("run", "--key", key, *self.options, "--brief", f"{key}.py")
        if code:
            sys.exit(f"{key}: {told['error']['message']}")
        return told["runs"][0]["id"], text

    def read(self, number: int, run: str, text: str) -> Result:
        while self.answers.ask("wait", run, "--timeout", WAIT, "--json")[0] == 124:
            pass
        _, told = self.answers.ask("show", run, "--brief")
        metric = told["metrics"].get("val_bpb") if told["state"] == "completed" else None
        kind = told["triage"]["kind"] if told["triage"] else told["fault"]
        cause = kind or (told["reason"] if metric is None else "")
        if metric is None and told["state"] == "completed" and not kind:
            cause = "it printed no val_bpb"  # and what another run has left in the folder is not this one's
        return Result(number, run, text, told["state"], metric, cause)

    def night(self, experiments: int) -> None:
        waiting: list[tuple[str, str]] = []
        for number in range(experiments):
            while len(self.results) + len(waiting) < min(number + AHEAD + 1, experiments):
                waiting.append(self.submit(len(self.results) + len(waiting)))
            self.results.append(self.read(number, *waiting.pop(0)))
            self.write()

    def write(self) -> None:
        best = self.best(len(self.results))
        lines = ["experiment\trun\tstate\tval_bpb\tcause"]
        for one in self.results:
            metric = "" if one.metric is None else f"{one.metric:.6f}"
            lines.append(f"{self.name}-{one.number:03}\t{one.run}\t{one.state}\t{metric}\t{one.cause}")
        self.table.write_text("\n".join(lines) + "\n")
        if best is not None:
            print(
                f"{len(self.results)} done, best {best.metric:.6f} of {self.name}-{best.number:03}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument(
        "--name", default="night", help="the keys begin with it; another night needs another name"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault-every", type=int, default=5, metavar="N")
    parser.add_argument("--folder", type=Path, default=Path("agent-night"), help="where the agent works")
    parser.add_argument("options", nargs="*", help="options of `backprop run`, after --")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    first = given.folder / "train.first.py"
    if not first.exists():
        shutil.copyfile(Path(__file__).parent / "train.py", first)
    options = ["--stop-on-nan", "--retries", "1", "--at-timebox", "end", *given.options]
    os.chdir(given.folder)
    agent = Agent(given.name, given.seed, given.fault_every, options)
    agent.night(given.experiments)
    print(f"{agent.answers.commands} commands, the longest answer {agent.answers.longest} bytes")


if __name__ == "__main__":
    main()
