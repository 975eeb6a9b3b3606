"""Many trials of one experiment: searched by Ray Tune, kept as run folders, ranked with intervals."""
