"""Reads numbers out of what training scripts print anyway. Pure: text in, numbers out."""
