"""Looks into files for what they hold, without loading them: whole or not, a checkpoint or a result."""
