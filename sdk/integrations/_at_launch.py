"""Attaches our callbacks to a script that knows nothing of us, once it calls `train` or `fit`.

`attach` is called when a framework has been imported, and puts a wrapper around the one method that trains. Everything
is decided at the call. The script's own arguments go on as they are, with our callback beside its own and the
checkpoint to go on from where the script names none.

A run may hold several trainings: a second `fit`, a sweep in a shell script. A checkpoint of one of them is worth
nothing to another. So the first training of a run is the one, for all its segments. It is known by the command of its
process, noted in the run's folder. Any other is left alone. Nothing of ours ends the script: what goes wrong is said
once, in a line of the log, and the framework goes on as it would.
"""

import json
import os
import sys

from .. import resume_from
from .._stop import leave_note
from . import _held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    Method = Callable[..., object]

STOOD_BACK = "stood-back"
TRAINING = "training.json"
SEGMENT_TRAINING = "attached"
_RANK = ("--local_rank", "--local-rank")

STACK_DUMPS = "stack-dumps"

_shows_stacks = False
_trainings = 0  # begun in this process, of any framework


class LeftAlone(Exception):
    """Why the integration is not for this training."""


class Training:
    """One call of a framework's method. `owner`: whose method it is. `checkpoint`: to go on from."""

    def __init__(self, owner: object, args: "tuple[object, ...]", kwargs: "dict[str, object]") -> None:
        self.owner = owner
        self.args = args
        self.kwargs = dict(kwargs)
        self.checkpoint: str | None = None

    def given(self, name: str, at: int) -> object:
        """What the script gives for an argument, None for nothing."""
        return self.args[at] if len(self.args) > at else self.kwargs.get(name)

    def give(self, name: str, at: int, value: object) -> None:
        """Give what the script has given nothing or None for."""
        if len(self.args) > at:
            self.args = (*self.args[:at], value, *self.args[at + 1 :])
        else:
            self.kwargs[name] = value


class Integration:
    """What is known of one framework. `versions`: the lowest that is tested, and the first that is not any more."""

    name: str
    versions: "tuple[tuple[int, int], tuple[int, int]]"

    def version(self) -> str:
        """Return the version that is installed."""
        raise NotImplementedError

    def is_a_trial(self, training: Training) -> bool:
        """Return whether the call only looks for something, a learning rate, and trains nothing that is kept."""
        del training
        return False

    def check(self, training: Training) -> None:
        """Raise LeftAlone where the script does our part itself, or what would be handed over is not complete."""
        raise NotImplementedError

    def processes(self, training: Training) -> int:
        """Return how many processes train together."""
        raise NotImplementedError

    def hand_over(self, training: Training) -> "Method":
        """Put callback and checkpoint into the call; return what takes the callback away again."""
        raise NotImplementedError


def attach(name: str, executed: "ModuleType") -> None:
    """Wrap the method that trains, in the module `name` that has just been executed."""
    _held.hold()
    _show_stacks_when_asked()
    if name == "transformers.trainer":
        from ._at_launch_transformers import Transformers

        _wrap(executed.Trainer, "train", Transformers())
    elif name.endswith("pytorch.trainer.trainer") or name.startswith("pytorch_lightning."):
        from ._at_launch_lightning import Lightning

        _wrap(executed.Trainer, "fit", Lightning(name.partition(".")[0]))
    elif name == "keras.src.models.model":
        from ._at_launch_keras import Keras

        _wrap(executed.Model, "fit", Keras())
    elif name == "ultralytics.engine.model":
        from ._at_launch_ultralytics import Ultralytics

        _wrap(executed.Model, "train", Ultralytics())


def _show_stacks_when_asked() -> None:
    """Write the stacks of all threads into the log at a signal, and note that for the worker. It asks when this hangs.

    `faulthandler` needs no interpreter that still works. The signal is one that nobody uses; where the script does, it
    is left to the script.
    """
    global _shows_stacks
    if _shows_stacks:
        return
    _shows_stacks = True
    try:
        import faulthandler
        import signal

        number = signal.SIGRTMAX - 5
        if signal.getsignal(number) is not signal.SIG_DFL:
            return
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
            start = int(file.read().rpartition(b")")[2].split()[19])
        faulthandler.register(number, file=2)
        segment = os.path.dirname(os.environ["BACKPROP_EVENTS"])  # noqa: PTH120 - pathlib is a slow import
        with open(f"{segment}/{STACK_DUMPS}", "ab", buffering=0) as file:  # noqa: PTH123
            file.write(b"%d %d %d\n" % (os.getpid(), start, number))
    except Exception:
        return  # a hang is ended without stacks too


def _wrap(owner: type, name: str, integration: Integration) -> None:
    import functools

    original: Method = getattr(owner, name)

    @functools.wraps(original)
    def method(self: object, *args: object, **kwargs: object) -> object:
        training = Training(self, args, kwargs)
        undo = _prepare(integration, training)
        try:
            result = original(self, *training.args, **training.kwargs)
        finally:
            if undo is not None:
                _quietly(integration, undo)
        leave_note(STOOD_BACK)  # what the script does after its training, nobody saves
        return result

    setattr(owner, name, method)


def _prepare(integration: Integration, training: Training) -> "Method | None":
    """Return what undoes the attachment; None where the training is left alone, its call unchanged."""
    global _trainings
    args, kwargs = training.args, dict(training.kwargs)
    try:
        if integration.is_a_trial(training):
            return None
        _trainings += 1
        _refuse_unknown(integration)
        _put_back()
        integration.check(training)
        _refuse_processes(integration.processes(training))
        _claim(integration)
        training.checkpoint = resume_from()
        undo = integration.hand_over(training)
        goes_on = ", goes on from a checkpoint" if training.checkpoint is not None else ""
        _say(f"integration for {integration.name} {integration.version()} attached{goes_on}")
    except LeftAlone as why:
        _stand_back(f"{integration.name} is left alone: {why}")
    except Exception as error:
        _stand_back(f"no integration for {integration.name}: {error!r}")
    else:
        return undo
    training.args, training.kwargs = args, kwargs
    return None


def module(name: str) -> "Any":
    """Import a module of the user's."""
    import importlib

    return importlib.import_module(name)


def guard(callback: object, integration: Integration, but: str = "") -> None:
    """Have no hook of our callback, `but` that one, end the training: the first that raises is the last called."""
    broken: list[bool] = []

    def guarded(hook: "Method") -> "Method":
        def call(*args: object, **kwargs: object) -> object:
            try:
                return None if broken else hook(*args, **kwargs)
            except Exception as error:
                broken.append(True)
                _stand_back(f"the integration for {integration.name} stops: {error!r}")
                return None

        return call

    ours = (one for one in type(callback).__mro__ if one.__module__.startswith(__package__ or "-"))
    hooks = {name for one in ours for name in vars(one) if name.startswith("on_") or name == "setup"}
    for name in hooks - {but}:
        setattr(callback, name, guarded(getattr(callback, name)))


def refuse_our_own(callbacks: "Sequence[object]") -> None:
    """Raise LeftAlone where the script has our callback already."""
    for callback in callbacks:
        if any(one.__name__ == "BackpropCallback" for one in type(callback).__mro__):
            raise LeftAlone("it has our callback already")


def _refuse_unknown(integration: Integration) -> None:
    if "backprop" in sys.modules:
        raise LeftAlone("the script imports backprop itself")
    text = integration.version()
    low, high = integration.versions
    major, minor = (int(part) for part in text.split(".")[:2])
    if not low <= (major, minor) < high:
        tested = f"{low[0]}.{low[1]} to below {high[0]}.{high[1]}"
        raise LeftAlone(f"version {text} is not tested, {tested} is")


def _refuse_processes(count: int) -> None:
    """Raise LeftAlone where several processes train that nothing tells to belong together."""
    if count > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise LeftAlone(f"it trains in {count} processes without torchrun")


def _claim(integration: Integration) -> None:
    """Make this training the run's own, or raise LeftAlone where another one is. Raises OSError."""
    if _trainings > 1:
        raise LeftAlone("this process has trained before")
    segment = os.path.dirname(os.environ["BACKPROP_EVENTS"])  # noqa: PTH120 - pathlib is a slow import
    words = [word for word in sys.orig_argv[1:] if not word.startswith(_RANK)]
    mine = {
        "framework": integration.name,
        "words": words,
        "command": os.environ["BACKPROP_INTEGRATIONS"].split(":")[2],
    }
    first = _first(f"{segment}/../{TRAINING}", mine)
    # Once its user has changed the command, there are no words to go by.
    same = first.get("words") == words or first.get("command") != mine["command"]
    if first.get("framework") != integration.name or not same:
        raise LeftAlone("another training of this run came first")
    process = os.environ.get("TORCHELASTIC_RUN_ID") or str(os.getpid())
    if _first(f"{segment}/{SEGMENT_TRAINING}", {**mine, "process": process}).get("process") != process:
        raise LeftAlone("another training of this segment came first")


def _first(path: str, mine: "Mapping[str, object]") -> "Mapping[str, object]":
    """Return what stands in a file that is made once; it is made of `mine` by the first who comes. Raises OSError."""
    draft = f"{path}.{os.getpid()}.tmp"
    with open(draft, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(mine, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # whole or not at all, and never over another's
    except FileExistsError:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return json.load(file)
    finally:
        os.unlink(draft)  # noqa: PTH108
    return mine


def _put_back() -> None:
    """Have the checkpoint where it was. Raises LeftAlone where it is gone for good."""
    if _held.put_back():
        _say("the script had removed the checkpoint to go on from; it was put back")
    checkpoint = os.environ.get("BACKPROP_RESUME_FROM")
    if checkpoint and not os.path.lexists(checkpoint):
        raise LeftAlone("the checkpoint to go on from is gone")


def _stand_back(text: str) -> None:
    leave_note(STOOD_BACK)
    _say(text)


def _quietly(integration: Integration, undo: "Method") -> None:
    try:
        undo()
    except Exception as error:
        _say(f"the integration for {integration.name} could not be taken away: {error!r}")


def _say(text: str) -> None:
    """One line in the run's log, of the first rank."""
    if os.environ.get("RANK", "0") == "0":
        try:
            sys.stderr.write(f"backprop: {text}\n")
        except Exception:
            return
