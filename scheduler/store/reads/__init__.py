"""Answers questions about runs, segments and metrics. Changes nothing."""
