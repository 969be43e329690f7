"""Moves the VRAM of a run to RAM while the run is suspended, and back. Says where that may be done."""
