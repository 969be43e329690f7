"""Runs segments: the interface, its implementation for this machine, the locks and the files of a segment."""
