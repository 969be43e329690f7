"""Turns a sweep or a file of commands into many runs, and queues all of them or none."""
