"""Turns command lines into queued runs, and a waiting run into text for an editor and back."""
