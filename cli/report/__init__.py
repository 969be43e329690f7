"""Puts a night together out of what was recorded, and shows it as text, as one HTML file and as JSON."""
