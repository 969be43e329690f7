"""Runs, stops and resumes a script on trial, and says whether it can be chained."""
