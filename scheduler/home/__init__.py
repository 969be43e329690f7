"""Lays out `~/.backprop`: the folders of runs, what is written there, and what is refused."""
