"""Generators of pages in docs/: each prints its page."""
