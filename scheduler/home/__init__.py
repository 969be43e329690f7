"""Names and keeps the files under the home: `~/.backprop`."""
