"""Makes the environment of a segment's leader: trackers, memory limits, installed packages, the code
snapshot."""
