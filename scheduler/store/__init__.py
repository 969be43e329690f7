"""Owns the database. The only package that knows SQL, peewee and the tables; rows leave it as frozen
records."""
