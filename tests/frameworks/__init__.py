"""Ordinary training scripts of real frameworks, chained; they need the extra `frameworks` and are skipped without."""
