"""Speaks MCP by hand to the installed server: a line of JSON each, without the SDK's client in between."""

import fcntl
import json
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from typing import Any

from tests.support.harness import COMMAND, Bench

VERSION = "2025-06-18"


class McpWire:
    """A server that was started, and its pipes. `before`: what is put before its command line."""

    def __init__(self, bench: Bench, before: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, str(COMMAND), "mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=bench.environment,
            cwd=bench.project,
            text=True,
            start_new_session=True,
        )
        self._number = 0
        client = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        self.ask("initialize", client)
        self._write({"method": "notifications/initialized"})

    def unread(self) -> int:
        """Return how many bytes the server has written that nobody has read."""
        assert self.process.stdout is not None
        count = fcntl.ioctl(self.process.stdout, termios.FIONREAD, bytes(4))
        return int.from_bytes(count, sys.byteorder)

    def send(self, method: str, params: dict[str, Any]) -> int:
        """Send a request and wait for nothing; return its number."""
        self._number += 1
        self._write({"id": self._number, "method": method, "params": params})
        return self._number

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; everything else on stdout is a failure."""
        number = self.send(method, params)
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == number
        return answer

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the structured answer of a tool."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]["structuredContent"]

    def cancel(self, number: int) -> None:
        self._write({"method": "notifications/cancelled", "params": {"requestId": number}})

    def close(self) -> int:
        """Close stdin, and return the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(timeout=20)
        self.drop()
        return code

    def drop(self) -> None:
        """Kill what is left of it, and close the pipes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()
