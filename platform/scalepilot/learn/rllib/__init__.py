"""Training inside RLlib's new API stack, batch-native: columns instead of episode objects."""
