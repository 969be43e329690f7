"""Prints what the worker has to say, and never waits for a reader."""
