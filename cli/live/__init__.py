"""What stays on the terminal and changes there: the live screen and its keys, repeated output, a followed run."""
