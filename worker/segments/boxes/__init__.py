"""Decides what becomes of live segments at the end of their boxes."""
