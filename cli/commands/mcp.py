"""`backprop mcp`: serves the commands as tools to an agent, over MCP on stdin and stdout."""

import sys
from typing import Final

import click

from backprop.cli.render.json_views import is_terminal
from backprop.scheduler.errors import BadCommand

SDK: Final = 2
"""The major version of the SDK that the server is written for."""
EPILOG: Final = """\b
A client starts it itself. For many, in their JSON:
  {"mcpServers": {"backprop": {"command": "backprop", "args": ["mcp"]}}}
"""


@click.command(name="mcp", epilog=EPILOG)
def command() -> int:
    """Serve tools for agents over MCP: stdin and stdout, no network.

    Needs `pip install 'backprop-scheduler[mcp]'`. Ends when stdin is closed, and on Ctrl-C.
    """
    if not _has_sdk():
        raise BadCommand(f"backprop mcp needs mcp {SDK}; install it: pip install 'backprop-scheduler[mcp]'")
    from backprop.cli.mcp_server.server import serve

    if is_terminal(sys.stdin):
        click.echo("waits for a client on stdin; Ctrl-C ends it", err=True)
    return serve()


def _has_sdk() -> bool:
    from importlib import metadata

    try:
        return metadata.version("mcp").split(".")[0] == str(SDK)
    except metadata.PackageNotFoundError:
        return False
