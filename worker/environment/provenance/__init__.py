"""Notes what a run was queued with: its code, its Python and its packages; tells two such notes apart."""
