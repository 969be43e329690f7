"""Kill sweeps: a fault at the n-th system call of a worker, a supervisor or a command, and what comes of it."""
