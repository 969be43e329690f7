"""Reads the machine and assembles its state for the governor, for `status` and for dry runs."""
