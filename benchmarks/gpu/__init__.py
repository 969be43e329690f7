"""What only a real GPU can show. No result is kept here: run it on yours with `python -m benchmarks.gpu.check`."""
