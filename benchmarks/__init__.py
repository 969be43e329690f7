"""Measures what Backprop costs on this machine: `python -m benchmarks`."""
