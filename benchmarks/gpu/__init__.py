"""Checks what only a real GPU can show: run `python -m benchmarks.gpu.check` on yours."""
