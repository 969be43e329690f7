"""Callbacks for those who want the last second too: `backprop.integrations.lightning`, `.transformers`, `.keras`.

Each saves when `backprop.should_stop()` says so, announces the checkpoint, tells step and loss, and ends the segment
with exit code 75. Outside Backprop they do nothing. Each imports its framework, so that this package does not.
See docs/integrations.md.
"""
