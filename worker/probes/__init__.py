"""Reads the host and its GPUs into one frozen snapshot."""
