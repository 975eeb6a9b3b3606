"""A run on disk: its folder, status, metrics and checkpoints."""
