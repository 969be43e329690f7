"""Launches live segments, reads their events, keeps their timebox and applies their ends."""
