"""What stands in the place of `hooks.log`, and is no file, holds up no worker."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backprop.worker.reactions.hooks import Hooks


@pytest.mark.parametrize("with_reader", [True, False])
def test_a_fifo_is_refused_at_once(tmp_path: Path, with_reader: bool) -> None:
    said: list[str] = []
    context: Any = SimpleNamespace(
        home=SimpleNamespace(root=tmp_path),
        settings=SimpleNamespace(hooks={"completed": "true"}),
        console=SimpleNamespace(event=lambda _, more: said.append(more)),
        clock=SimpleNamespace(monotonic_s=lambda: 1.0),
    )
    os.mkfifo(tmp_path / "hooks.log")
    reader = os.open(tmp_path / "hooks.log", os.O_RDONLY | os.O_NONBLOCK) if with_reader else None
    Hooks(context).fire("completed", {})
    if reader is not None:
        os.close(reader)
    assert len(said) == 1
    assert said[0].startswith("completed: could not be started: ")
    assert "hooks.log" in said[0]
