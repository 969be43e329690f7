"""Changes runs: what users ask for, what workers claim, report and apply. Every move is a compare-and-set."""
