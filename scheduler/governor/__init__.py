"""Decides whether a run may start, on which GPU, and whether it may go on. Pure: from a snapshot to a
decision with reasons."""
