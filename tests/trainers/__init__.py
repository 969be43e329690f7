"""The shapes of public training scripts, in nights with boxes that are too short for them."""
