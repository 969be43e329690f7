"""For the Hugging Face Trainer and all that is built on it: `Trainer(callbacks=[BackpropCallback()])`.

from backprop.integrations.transformers import BackpropCallback

trainer = Trainer(model, args, train_dataset=data, callbacks=[BackpropCallback()])
trainer.train(resume_from_checkpoint=backprop.resume_from())
"""

import time
from pathlib import Path

from .. import run_id
from .._events import log
from ._framework import framework
from ._saving import AGAIN, Interval, announce, asked_to_stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class Arguments(Protocol):
        """What is used of `transformers.TrainingArguments`."""

        device: object
        output_dir: str
        world_size: int

    class State(Protocol):
        """What is used of `transformers.TrainerState`."""

        global_step: int
        max_steps: int
        is_world_process_zero: bool

    class Control(Protocol):
        """What is used of `transformers.TrainerControl`."""

        should_evaluate: bool
        should_save: bool

    class TrainerCallback:
        """The base class, whose hooks do nothing."""
else:
    TrainerCallback = framework("transformers", install="transformers").TrainerCallback

GO_ON, SAVE, STOP = range(3)
TELL_EVERY_S = 1.0


class BackpropCallback(TrainerCallback):
    """Has the Trainer save after the step in which Backprop asks the segment to stop, and exits with 75.

    The checkpoints are the Trainer's own, `checkpoint-N` in its `output_dir`, under its `save_total_limit`; each is
    announced once it is whole. Loss and metrics are told whenever the Trainer logs them (`logging_steps`), the step
    every second too, and of how many. On several ranks all stop at the same step, also when the signal reached one
    alone. An evaluation cannot be interrupted; one that falls on the last step of a segment is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._interval = Interval()
        self._stopping = False
        self._told_s = 0.0

    def on_train_begin(self, args: "Arguments", state: "State", control: "Control", **_: object) -> None:
        asked_to_stop()  # so that its handler is there from the first step on
        self._interval.begin()

    def on_step_end(self, args: "Arguments", state: "State", control: "Control", **_: object) -> None:
        if not run_id():
            return
        if state.is_world_process_zero and time.monotonic() - self._told_s >= TELL_EVERY_S:
            log(step=state.global_step, total=state.max_steps)
            self._told_s = time.monotonic()
        wish = _highest(args, STOP if asked_to_stop() else SAVE if self._interval.is_over() else GO_ON)
        if wish != GO_ON:
            control.should_save = True
        if wish == STOP:
            self._stopping = True
            control.should_evaluate = False

    def on_save(self, args: "Arguments", state: "State", control: "Control", **_: object) -> None:
        if not run_id():
            return
        if state.is_world_process_zero:
            announce(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
        self._interval.begin()
        if self._stopping:
            _wait_for_all(args)
            raise SystemExit(AGAIN)

    def on_log(
        self,
        args: "Arguments",
        state: "State",
        control: "Control",
        logs: "Mapping[str, object] | None" = None,
        **_: object,
    ) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if type(value) in (int, float)}
        if numbers and state.is_world_process_zero:
            numbers |= {"step": state.global_step, "total": state.max_steps}
            log(**numbers)  # pyright: ignore[reportArgumentType]  # numbers, as was asked


def _wait_for_all(args: "Arguments") -> None:
    """torchrun ends all ranks with the first that leaves: not before the checkpoint has been announced."""
    if args.world_size > 1:
        framework("torch", install="torch").distributed.barrier()


def _highest(args: "Arguments", wish: int) -> int:
    """The highest wish of all ranks: one that stops alone leaves the others waiting for it in the next step."""
    if args.world_size == 1:
        return wish
    torch = framework("torch", install="torch")
    wishes = torch.tensor([wish], device=args.device)
    torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
    return int(wishes.item())
