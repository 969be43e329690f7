"""Answers a client over stdin and stdout: lists the tools, and asks the command that a tool stands for.

The SDK reads and writes; nothing else may write to stdout. No address is listened on or connected to.
"""

import json
import os
import signal
import threading
from importlib import metadata
from typing import Any, Final, NoReturn

import anyio
import msgspec
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ToolOfProtocol

from backprop.cli.exit_codes import INTERRUPTED
from backprop.cli.mcp_server.asking import ToolAnswer, ask, refusal
from backprop.cli.mcp_server.tools import TOOLS, Tool, WaitTool, description, input_schema
from backprop.scheduler.errors import BackpropError

USAGE: Final = 2
AT_ONCE, WAITS_AT_ONCE = 4, 32
"""Commands that run at the same time, and those that only wait. The others take turns."""
LAST_WORDS_S: Final = 1.0
"""What a client that has closed stdin may still read."""
INSTRUCTIONS: Final = """\
Backprop queues training runs on this machine. A worker, which the user starts (`backprop worker`), runs them in turn \
and resumes each from its checkpoints. The loop: submit with a key of your own; wait, again while exit is 124; show, \
and logs if it failed; metrics or compare; the next. Never poll, and start no training yourself. An answer with \
`error` says in `code` and `message` what was refused, and in `suggestion` what to do."""


def serve() -> int:
    """Serve until stdin is closed; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        anyio.run(_serve)
    except* OSError:
        pass  # the client is gone, and reads no more
    return 0


def _leave(number: int, _frame: object) -> NoReturn:
    """Exit at once. A thread of the SDK sits in a read of stdin, which the interpreter's teardown would wait for. The
    commands that are under way get a signal from the kernel."""
    os._exit(INTERRUPTED if number == signal.SIGINT else 128 + number)


async def _serve() -> None:
    server: Server[Any] = Server(
        "backprop",
        version=metadata.version("backprop-scheduler"),
        instructions=INSTRUCTIONS,
        on_list_tools=_list_tools,
        on_call_tool=_Calls().call,
    )
    server.middleware.clear()  # OpenTelemetry's, which may bring an exporter that connects somewhere
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
        # A client that no longer reads would keep the SDK's writer, and so this process, for ever.
        last = threading.Timer(LAST_WORDS_S, os._exit, (0,))
        last.daemon = True
        last.start()


async def _list_tools(_context: object, _params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(
        tools=[
            ToolOfProtocol(
                name=name,
                description=description(tool),
                input_schema=input_schema(tool),
                annotations=ToolAnnotations(
                    read_only_hint=not tool.changes, destructive_hint=False, open_world_hint=False
                ),
            )
            for name, tool in TOOLS.items()
        ]
    )


class _Calls:
    """Answers calls of tools, a few at once."""

    def __init__(self) -> None:
        self._turns = anyio.CapacityLimiter(AT_ONCE)
        self._waits = anyio.CapacityLimiter(WAITS_AT_ONCE)

    async def call(self, _context: object, params: CallToolRequestParams) -> CallToolResult:
        """Return the answer of a tool, a refusal too. Raises MCPError for one that is not there."""
        kind = TOOLS.get(params.name)
        if kind is None:
            raise MCPError(INVALID_PARAMS, f"no tool {params.name}; there are: {', '.join(TOOLS)}")
        try:
            tool = msgspec.convert(params.arguments or {}, kind)
            async with self._waits if isinstance(tool, WaitTool) else self._turns:
                answer = await _answer(tool)
        except msgspec.ValidationError as error:
            answer = refusal("usage", USAGE, f"{params.name}: {error}")
        text = TextContent(type="text", text=json.dumps(answer.value))
        return CallToolResult(content=[text], structured_content=answer.value, is_error=answer.refused)


async def _answer(tool: Tool) -> ToolAnswer:
    try:
        return await ask(tool.words(), tool.directory, tool.limit_s)
    except BackpropError as error:
        return refusal(error.code, error.exit_code, str(error))
