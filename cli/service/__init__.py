"""Makes the worker a service of the user's systemd: the unit, and what systemd is asked to do with it."""
