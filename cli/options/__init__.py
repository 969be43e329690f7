"""Reads what several commands take: global options, settings, numbers, times, and the runs that are meant."""
