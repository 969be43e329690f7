"""Repairs and backs up the database, removes runs, and archives their logs."""
