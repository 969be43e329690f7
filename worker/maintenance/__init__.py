"""Keeps a home in order: repairs and backs up the database, removes runs, archives logs, measures disk use."""
