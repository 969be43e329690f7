"""Decides in which code and with which added variables a segment runs: snapshot, memory limit, trackers."""
