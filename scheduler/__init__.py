"""What is queued, what may start, what each state means. Starts no process, sends no signal."""
