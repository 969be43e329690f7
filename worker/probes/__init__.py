"""Readers of the host and of GPUs, behind one frozen snapshot."""
