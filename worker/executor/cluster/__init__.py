"""Runs segments as jobs of a cluster: hand-over, claim by the node, and what a job's end means; engines behind it."""
