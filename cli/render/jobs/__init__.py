"""What is shown of clusters and of the jobs that segments are there."""
