"""Reads settings from files, environment and options, and says where each value came from."""
