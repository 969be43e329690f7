"""Turns a command line, a sweep or a file of commands into runs, and queues them."""
