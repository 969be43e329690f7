"""Starts a process of ours that holds VRAM with a known content, and asks it what it holds. See `mover/canary.py`."""

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

from backprop.worker.executor.vram.moving import PROGRAM
from backprop.worker.supervisor import process_tree

START_S: Final = 60.0
ANSWER_S: Final = 60.0


class NoCanary(Exception):
    """The process could not hold the VRAM, or does not answer. The text says why."""


class Canary:
    """The process while it lives. `digest`: of what it holds, as it said last."""

    def __init__(
        self,
        gpu_uuid: str,
        mib: int,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (*PROGRAM, "--canary"),
    ) -> None:
        """Start it and wait until it holds `mib`. `program`: is given that as its last word. Raises OSError,
        NoCanary."""
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu_uuid}
        self._process = subprocess.Popen(
            [*program, str(mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**(os.environ if environment is None else environment), **order},
            cwd="/",
            bufsize=0,
        )
        self._heard = b""
        try:
            self.digest = self._answer("ready", START_S)
            self.identity = self._identify()
        except NoCanary:
            self.kill()
            raise

    def ask(self, word: str = "look") -> str:
        """Have it read its memory, after it has filled it anew where `word` is "change"; return the digest. Raises
        NoCanary."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{word}\n".encode())
        except OSError as error:
            raise NoCanary(self._ending()) from error
        self.digest = self._answer("holds", ANSWER_S)
        return self.digest

    def kill(self) -> None:
        """End it. Never while a mover is at work on it."""
        self._process.kill()
        self.leave()
        self._process.wait()

    def leave(self) -> None:
        """Let go of it: it ends by itself as soon as it can."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _identify(self) -> process_tree.Process:
        identity = process_tree.identify(self._process.pid)
        if identity is None:
            raise NoCanary(self._ending())
        return identity

    def _answer(self, word: str, patience_s: float) -> str:
        assert self._process.stdout is not None
        end_s = time.monotonic() + patience_s
        while b"\n" not in self._heard:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                raise NoCanary(f"it has not answered for {patience_s:g} s")
            part = os.read(self._process.stdout.fileno(), 4096)
            if not part:
                raise NoCanary(self._ending())
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        said, _, rest = line.decode(errors="replace").partition(" ")
        if said != word:
            raise NoCanary(rest)
        return rest

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it does not listen any more"
        return f"it ended with signal {-code}" if code < 0 else f"it ended with exit code {code}"
