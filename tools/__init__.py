"""Programs for whoever develops Backprop; not installed."""
