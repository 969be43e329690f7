"""`backprop top` with keys: chooses runs, shows their logs and does what is asked of them. Needs textual."""
