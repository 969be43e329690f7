"""Tells how a segment ended, and what its chain had done by then: the facts that `scheduler.outcome` decides on."""
