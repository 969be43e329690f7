"""Decides what the end of a segment means for its run: the facts of an end, and the move that follows. Pure."""
