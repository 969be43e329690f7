"""What does Backprop cost? Measured on this machine by one command: `python -m benchmarks.run`."""
