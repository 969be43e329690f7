"""A storm over runs on a cluster."""
