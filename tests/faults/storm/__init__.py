"""A storm: chained runs while everything around them is killed, stopped, filled, locked, damaged."""
