"""Checks this installation, the home, the database and the machine, and says how to mend what is wrong."""
