"""The `backprop` command: parse, call one verb, print."""
