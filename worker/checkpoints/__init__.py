"""Finds checkpoints, judges them, backs them up, and chooses the one that the next segment resumes from."""
