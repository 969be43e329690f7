"""The small standard-library program that stands beside each segment."""
