"""Words what a run was queued with, and in what two runs differ."""
