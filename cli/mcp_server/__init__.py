"""Serves the commands as tools to agents, over MCP on stdin and stdout."""
