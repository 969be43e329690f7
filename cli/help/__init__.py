"""Helps with the command line itself: Tab, its help in sections, and an answer to words of other tools."""
