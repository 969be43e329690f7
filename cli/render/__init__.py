"""Prints runs, tables, logs and the machine for people, and as JSON, CSV or TensorBoard files for
programs."""
