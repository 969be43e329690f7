"""Generates pages of docs/ from the product itself, so that they cannot disagree with it."""
