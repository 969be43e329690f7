"""The standard-library program that runs beside each segment and ends it on time."""
