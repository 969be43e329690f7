"""Removes a run's older checkpoints where its user wants only so many kept: only what is certainly its own."""
