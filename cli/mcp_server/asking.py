"""Runs a command line as a process of its own and returns its answer.

In the server's own process a command could end the server, print into the protocol or hang on a share, and an upgrade
of the program would mix old modules with new ones. A process of its own takes a tenth of a second. It ends with the
server, however that dies, and when its client takes the call back.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, Process

from backprop.scheduler.errors import BadCommand

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of an answer. Far more than a client can use."""
KEPT_STDERR_BYTES: Final = 64 * 1024
TO_END_S: Final = 1.0
NO_ANSWER: Final = "no-answer"
_CHILD: Final = "from backprop.cli.mcp_server.one_command import run_command_line; run_command_line()"
_FAILED: Final = 1


class ToolAnswer(msgspec.Struct, frozen=True):
    """What a command has said. `refused`: it was not done, or not all of it."""

    value: dict[str, Any]
    refused: bool


async def ask(words: Sequence[str], directory: str | None, limit_s: float) -> ToolAnswer:
    """Run a command line; return its answer. `directory`: None for the server's own. Raises BadCommand."""
    # -P: what lies in the user's directory is not imported.
    argv = [sys.executable, "-P", "-c", _CHILD, str(os.getpid()), *words]
    try:
        process = await anyio.open_process(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=directory
        )
    except (OSError, ValueError) as error:  # ValueError: a NUL in a word
        trouble = error.strerror if isinstance(error, OSError) else str(error)
        raise BadCommand(
            f"cannot be run in {directory or 'the directory of the server'}: {trouble}"
        ) from error
    try:
        with anyio.move_on_after(limit_s):
            out, err = await _read(process)
            return _answer(await process.wait(), out, err)
        return refusal(NO_ANSWER, _FAILED, f"no answer within {limit_s:g} s; ask again, with the same key")
    finally:
        await _end(process)


def refusal(code: str, exit_code: int, message: str) -> ToolAnswer:
    """Return a refusal, as every command words it."""
    from backprop.cli.render.answers import JsonAnswer

    answer = JsonAnswer(())
    answer.fail(code, exit_code, message)
    return ToolAnswer({"error": answer.error}, refused=True)


def _answer(code: int, out: bytes, err: bytes) -> ToolAnswer:
    try:
        said: Any = json.loads(out)
    except ValueError:
        lines = err.decode(errors="replace").strip().splitlines() or ["it has printed no JSON"]
        return refusal(NO_ANSWER, code or _FAILED, f"the command has exited {code}: {lines[-1]}")
    value: dict[str, Any] = {"runs": said} if isinstance(said, list) else said
    return ToolAnswer(value, refused=value.get("error") is not None)


async def _read(process: Process) -> tuple[bytes, bytes]:
    """Return what the process prints until it closes both streams."""
    out, err = bytearray(), bytearray()

    async def read(stream: ByteReceiveStream | None, into: bytearray, most: int) -> None:
        async for chunk in stream or ():
            into += chunk
            del into[: max(0, len(into) - most)]

    async with anyio.create_task_group() as both:
        both.start_soon(read, process.stdout, out, MOST_BYTES)
        both.start_soon(read, process.stderr, err, KEPT_STDERR_BYTES)
    return bytes(out), bytes(err)


async def _end(process: Process) -> None:
    """End a process that nobody waits for any more: politely first, for it may have files to remove."""
    with anyio.CancelScope(shield=True):
        for end in (process.terminate, process.kill):
            if process.returncode is None:
                end()
                with anyio.move_on_after(TO_END_S):
                    await process.wait()
        await process.aclose()
