"""Live segments that are jobs of clusters."""
