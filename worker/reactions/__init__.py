"""Acts on what has ended: hooks, successive halving, and runs whose dependencies can no longer be met."""
