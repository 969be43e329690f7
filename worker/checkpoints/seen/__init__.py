"""Finds what a run's processes save, wherever that is, and tells which run wrote it."""
