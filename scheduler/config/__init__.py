"""The settings: their table, the files they are read from, and what applies here."""
