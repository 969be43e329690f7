"""Notices a segment that hangs: it learns its rhythm, looks for any work, has its stacks dumped and asks it to end."""
