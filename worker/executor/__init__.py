"""Starts, signals and polls the processes of a segment, behind one interface; owns the locks and the files
of a segment."""
